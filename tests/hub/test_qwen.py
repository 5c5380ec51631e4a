"""Qwen3.5 as it is released, with eyes: what reads text is loaded alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ritornello as rt
from tests.hub.formats import BASE, QWEN

transformers = pytest.importorskip("transformers")

VISION = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_heads": 2,
    "out_hidden_size": 32,
    "patch_size": 4,
    "spatial_merge_size": 1,
    "temporal_patch_size": 1,
    "num_position_embeddings": 16,
}


EXPERTS = {
    "moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2, "shared_expert_intermediate_size": 40,
}  # fmt: skip
TEXT = {**BASE, **QWEN, "layer_types": ["linear_attention", "full_attention"]}
CLASSES = {"qwen3_5": ("Qwen3_5", TEXT), "qwen3_5_moe": ("Qwen3_5Moe", TEXT | EXPERTS)}


@torch.no_grad()
def released(format: str, folder: Path) -> Any:
    """transformers' model of a format, saved as its authors do."""
    torch.manual_seed(0)
    cls, text = CLASSES[format]
    text = {name: value for name, value in text.items() if format == "qwen3_5" or name != "intermediate_size"}
    config = getattr(transformers, f"{cls}Config")(text_config=text, vision_config=VISION)
    theirs = getattr(transformers, f"{cls}ForConditionalGeneration")(config).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(folder)
    return theirs


@pytest.mark.parametrize("format", CLASSES)
@torch.no_grad()
def test_the_text_model_of_a_checkpoint_with_vision(format: str, tmp_path: Path) -> None:
    theirs = released(format, tmp_path / "whole")
    ids = torch.randint(96, (2, 40))
    ours = rt.load(tmp_path / "whole")
    torch.testing.assert_close(ours(ids)[0], theirs(ids).logits, rtol=0, atol=2e-5)
    rt.save(ours, tmp_path / "text", format=f"{format}_text")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert torch.equal(again(ids).logits, theirs(ids).logits)
    with pytest.raises(rt.InputError, match="only read"):
        rt.save(ours, tmp_path / "more", format=format)


@torch.no_grad()
def test_all_experts_in_two_tensors(tmp_path: Path) -> None:
    """As Qwen3.5's are released; transformers writes them one by one."""
    theirs = released("qwen3_5_moe", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for i in range(2):
        at = f"model.language_model.layers.{i}.mlp.experts."
        each = [[weights.pop(f"{at}{e}.{part}_proj.weight") for part in ("gate", "up", "down")] for e in range(4)]
        weights[f"{at}gate_up_proj"] = torch.stack([torch.cat([gate, up]) for gate, up, _ in each])
        weights[f"{at}down_proj"] = torch.stack([down for _, _, down in each])
    save_file(weights, tmp_path / "model.safetensors")
    ids = torch.randint(96, (2, 40))
    ours = rt.load(tmp_path)
    torch.testing.assert_close(ours(ids)[0], theirs(ids).logits, rtol=0, atol=2e-5)
    rt.save(ours, tmp_path / "ours")
    assert torch.equal(rt.load(tmp_path / "ours")(ids)[0], ours(ids)[0])
    weights.pop(f"{at}down_proj")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(rt.errors.CheckpointError, match=r"layers\.1\.mlp\.experts\.0\.down_proj\.weight is missing"):
        rt.load(tmp_path)
