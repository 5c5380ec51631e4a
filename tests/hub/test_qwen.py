"""Qwen3.5 as it is released, with eyes: what reads text is loaded alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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


@torch.no_grad()
def test_the_text_model_of_a_checkpoint_with_vision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    text = {**BASE, **QWEN, "layer_types": ["linear_attention", "full_attention"]}
    config = transformers.Qwen3_5Config(text_config=text, vision_config=VISION)
    theirs = transformers.Qwen3_5ForConditionalGeneration(config).eval()
    for parameter in theirs.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.save_pretrained(tmp_path / "whole")
    ids = torch.randint(96, (2, 40))
    ours = rt.load(tmp_path / "whole")
    torch.testing.assert_close(ours(ids)[0], theirs(ids).logits, rtol=0, atol=2e-5)
    rt.save(ours, tmp_path / "text", format="qwen3_5_text")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert torch.equal(again(ids).logits, theirs(ids).logits)
    with pytest.raises(rt.InputError, match="only read"):
        rt.save(ours, tmp_path / "more", format="qwen3_5")
