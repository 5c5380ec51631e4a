"""Configs as released checkpoints spell them are read as transformers reads them, and nothing in them is left out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ritornello as rt
from ritornello.errors import CheckpointError
from ritornello.hub import base
from tests.hub import fla_reference
from tests.hub.released import OF_FLA, RELEASED

IDS = torch.randint(96, (2, 75), generator=torch.Generator().manual_seed(1))


def put(folder: Path, config: Mapping[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", [*RELEASED, *OF_FLA])
def test_no_setting_is_left_out(name: str, tmp_path: Path) -> None:
    format, config = base.recognise(put(tmp_path, (RELEASED | OF_FLA)[name]))
    assert format.unknown(config) == []


@torch.no_grad()
def theirs(folder: Path, config: Mapping[str, Any]) -> torch.Tensor:
    """The logits of transformers' model of a config, saved to the folder beside that config as it is spelled."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    read = transformers.AutoConfig.from_pretrained(put(folder, config))
    model = transformers.AutoModelForCausalLM.from_config(read, dtype=torch.float32).eval()
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    put(folder, config)
    return model(IDS, use_cache=False).logits


@pytest.mark.parametrize("name", RELEASED)
@torch.no_grad()
def test_the_logits_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    logits = theirs(tmp_path, RELEASED[name])
    found, _ = rt.load(tmp_path)(IDS)
    torch.testing.assert_close(found, logits, rtol=0, atol=2e-5 * min(1.0, logits.std().item()))


@pytest.mark.parametrize("name", OF_FLA)
def test_models_of_fla_are_built(name: str) -> None:
    with torch.device("meta"):
        ours = rt.LanguageModel(base.find(OF_FLA[name]["model_type"]).load.__self__.settings.read(OF_FLA[name]))  # type: ignore[attr-defined]
    assert ours.config.depth == 2


# ------------------------------------------------------------------------------------------------- names of tensors


def renamed(folder: Path, *pairs: tuple[str, str]) -> None:
    """Other names for the tensors of a file: the first pair that fits counts."""
    weights = load_file(folder / "model.safetensors")
    found = {}
    for name, tensor in weights.items():
        before, after = next((pair for pair in pairs if pair[0] in name), ("", ""))
        found[name.replace(before, after) if before else name] = tensor.clone()
    assert found.keys() != weights.keys()
    save_file(found, folder / "model.safetensors")


@torch.no_grad()
def test_names_of_the_authors_files(tmp_path: Path) -> None:
    logits = theirs(tmp_path, RELEASED["state-spaces/mamba-130m-hf"])
    renamed(tmp_path, ("embeddings.", "embedding."))
    torch.testing.assert_close(rt.load(tmp_path)(IDS)[0], logits, rtol=0, atol=2e-5)


@torch.no_grad()
def test_released_names_of_olmo_hybrid(tmp_path: Path) -> None:
    """The norms before a delta rule are named as attention's elsewhere, and transformers writes other names."""
    logits = theirs(tmp_path, RELEASED["allenai/Olmo-Hybrid-7B"])
    first = "model.layers.0."
    renamed(
        tmp_path,
        (f"{first}attention_layer_norm", f"{first}input_layernorm"),
        (f"{first}feedforward_layer_norm", f"{first}post_attention_layernorm"),
    )
    torch.testing.assert_close(rt.load(tmp_path)(IDS)[0], logits, rtol=0, atol=2e-5)


def of_fla(name: str, folder: Path) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The logits of a case of flash-linear-attention, and its tensors."""
    weights = fla_reference.tensors(name)
    put(folder, fla_reference.CASES[name]["config"])
    return fla_reference.logits(name, weights, IDS), weights


@pytest.mark.parametrize("name", ["delta_net", "rwkv7"])
@torch.no_grad()
def test_older_files_of_fla(name: str, tmp_path: Path) -> None:
    """One tensor for gate and up, one for the shares of RWKV-7, another name for DeltaNet's norm."""
    logits, weights = of_fla(name, tmp_path)
    for i in range(fla_reference.N):
        at = f"model.layers.{i}."
        if name == "rwkv7":
            mixes = [weights.pop(f"{at}attn.x_{part}").flatten() for part in "rwkvag"]
            weights[f"{at}attn.x_x"] = torch.stack(mixes)
        else:
            weights[f"{at}attn.norm.weight"] = weights.pop(f"{at}attn.o_norm.weight")
            both = [weights.pop(f"{at}mlp.{part}_proj.weight") for part in ("gate", "up")]
            weights[f"{at}mlp.gate_proj.weight"] = torch.cat(both)
    save_file(weights, tmp_path / "model.safetensors")
    torch.testing.assert_close(rt.load(tmp_path)(IDS)[0].double(), logits, rtol=0, atol=2e-5)
    weights.pop("model.layers.1.attn.o_proj.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"do not fit.* model\.layers\.1\.attn\.o_proj\.weight is missing\. "):
        rt.load(tmp_path)


def test_a_missing_half_is_named_and_not_taken_for_an_older_file(tmp_path: Path) -> None:
    _, weights = of_fla("gla", tmp_path)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing\. "):
        rt.load(tmp_path)


# ------------------------------------------------------------------------------------------------- what is refused

UNSUPPORTED = {
    "quantization_config": ("meta-llama/Llama-3.2-1B", {"quant_method": "fp8"}),
    "rope_interleaved": ("HuggingFaceTB/SmolLM2-135M", True),
    "embeddings_scale_by_sqrt_dim": ("google/recurrentgemma-2b", False),
    "add_qk_norm": ("NX-AI/xLSTM-7b", True),
    "add_post_norm": ("NX-AI/xLSTM-7b", True),
    "cell_norm_eps": ("NX-AI/xLSTM-7b", 1e-3),
    "attn_output_gate": ("Qwen/Qwen3.5-0.8B, its text", False),
    "block_use_swiglu": ("LiquidAI/LFM2-1.2B", False),
    "attn_rotary_emb": ("ibm-ai-platform/Bamba-9B", 8),
    "mamba_use_mlp": ("tiiuae/Falcon-H1-0.5B-Base", False),
    "attn_layer_indices": ("tiiuae/Falcon-H1-0.5B-Base", [1]),
    "linear_use_gate": ("allenai/Olmo-Hybrid-7B", False),
    "mlp_only_layers": ("Qwen/Qwen3.5-35B-A3B, its text", [1]),
    "mla_use_nope": ("moonshotai/Kimi-Linear-48B-A3B-Instruct", False),
    "num_nextn_predict_layers": ("moonshotai/Kimi-Linear-48B-A3B-Instruct", 1),
    "linear_attn_config": (
        "moonshotai/Kimi-Linear-48B-A3B-Instruct",
        {"head_dim": 8, "num_heads": 3, "kda_layers": [1, 2, 3], "full_attn_layers": [5]},
    ),
    "linear_attn_config has gate_lower_bound": ("moonshotai/Kimi-Linear-48B-A3B-Instruct", {"gate_lower_bound": -5.0}),
    "mlp_layer_types": ("moonshotai/Kimi-Linear-48B-A3B-Instruct", ["dense"]),
    "norm_topk_prob": ("Qwen/Qwen3.5-35B-A3B, its text", False),
    "intermediate_size": ("tiiuae/falcon-mamba-7b", 65),
    "num_hidden_layers": ("Qwen/Qwen3-Next-80B-A3B-Instruct", None),
}


@pytest.mark.parametrize("option", UNSUPPORTED)
def test_an_option_that_is_not_supported_is_named(option: str, tmp_path: Path) -> None:
    name, value = UNSUPPORTED[option]
    put(tmp_path, RELEASED[name] | {option.split(" has ")[0]: value})
    with pytest.raises(CheckpointError, match=option):
        rt.load(tmp_path)


def test_the_class_tells_where_no_model_type_does(tmp_path: Path) -> None:
    config = dict(RELEASED["meta-llama/Llama-3.2-1B"], architectures=["LlamaForCausalLM"])
    del config["model_type"]
    assert base.recognise(put(tmp_path, config))[0].name == "llama"
    put(tmp_path, config | {"architectures": ["Glm4MoeForCausalLM"]})
    with pytest.raises(CheckpointError, match="Glm4MoeForCausalLM"):
        rt.load(tmp_path)


@pytest.mark.parametrize(
    ("theirs", "ours"), {"embedding_dim": "hidden_size", "num_blocks": "num_hidden_layers"}.items()
)
def test_names_that_xlstm_7b_has_for_two_sizes(theirs: str, ours: str) -> None:
    config = dict(RELEASED["NX-AI/xLSTM-7b"])
    settings = base.find("xlstm").load.__self__.settings  # type: ignore[attr-defined]
    whole = settings.read(config)
    del config[ours]
    assert settings.read(config) == whole
    del config[theirs]
    with pytest.raises(CheckpointError, match=ours):
        settings.read(config)


def test_the_weights_are_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some repositories hold them again under their authors' names."""
    huggingface_hub = pytest.importorskip("huggingface_hub")
    filtered = pytest.importorskip("huggingface_hub.utils").filter_repo_objects
    held = ["config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors", "tokenizer.json"]
    more = ["consolidated.safetensors", "original/consolidated.00.safetensors", "pytorch_model.bin", "README.md"]
    asked: list[str] = []

    def download(name: str, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.extend(filtered([*held, *more], allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(put(tmp_path, {"model_type": "none"}))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(CheckpointError, match="is of kind 'none'"):
        rt.load("mistralai/Mamba-Codestral-7B-v0.1")
    assert asked == held
