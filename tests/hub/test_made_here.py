"""Models that were made here and not loaded: a recipe is saved in the format of its authors, and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ritornello as rt
from ritornello.models import recipe

SIZES = {"vocab_size": 23, "width": 128}
IDS = torch.randint(23, (2, 20), generator=torch.Generator().manual_seed(1))
OF_TRANSFORMERS = {
    "falcon_h1": "falcon_h1",
    "griffin": "recurrent_gemma",
    "jamba": "jamba",
    "kimi_linear": "kimi_linear",
    "lfm2": "lfm2",
    "olmo_hybrid": "olmo_hybrid",
    "qwen3_5": "qwen3_5_text",
    "qwen3_next": "qwen3_next",
    "xlstm[1:0]": "xlstm",
}
RWKV = {"norm": "layer_norm", "embedding_norm": True, "norm_eps": 1e-5}
OF_FLA = {
    "gla": (("gla", {"norm_eps": 1e-6}), "gated_mlp", {}),
    "retnet": (("retention", {"norm": "rms"}), "gated_mlp", {}),
    "hgrn2": (("hgrn2", {"norm_eps": 128e-5}), "gated_mlp", {}),
    "delta_net": (("delta_net", {"norm_eps": 1e-6}), "gated_mlp", {}),
    "gated_deltanet": (("gated_delta_net", {"norm_eps": 1e-6}), "gated_mlp", {}),
    "kda": (("kda", {"norm_eps": 1e-6}), "gated_mlp", {}),
    "rwkv6": (("rwkv6", {"norm_eps": 1e-5}), "rwkv6_channel_mix", RWKV),
    "rwkv7": ("rwkv7", "rwkv7_channel_mix", RWKV),
}


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
@torch.no_grad()
def test_recipes_are_what_transformers_reads(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = rt.LanguageModel(recipe(name, **SIZES, depth=8 if name == "jamba" else 4)).eval()
    rt.save(ours, tmp_path, format=OF_TRANSFORMERS[name])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(theirs(IDS, use_cache=False).logits, ours(IDS)[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize("format", OF_FLA)
@torch.no_grad()
def test_layers_are_saved_as_flash_linear_attention_keeps_them(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    pattern, ffn, more = OF_FLA[format]
    ours = rt.LanguageModel(rt.ModelConfig(**SIZES, depth=3, pattern=[pattern], ffn=ffn, **more)).eval()
    rt.save(ours, tmp_path, format=format)
    torch.testing.assert_close(rt.load(tmp_path)(IDS)[0], ours(IDS)[0], rtol=0, atol=1e-6)


EXPERTS = ("moe", {"experts": 4, "hidden": 8, "routing": "sigmoid", "choice_bias": True, "normalize_eps": 1e-6})
UNSAID = {
    "lfm2_moe": ("short_conv", [EXPERTS, "gated_mlp"], "A block with an MLP follows one with experts"),
    "kimi_linear": (("kda", {"gate_bias": False}), EXPERTS, "`shared` of moe is None"),
    "qwen3_next": (("gated_delta_net", {"norm_eps": 1e-6}), EXPERTS, "`choice_bias` of moe is True"),
}


@pytest.mark.parametrize("format", UNSAID)
def test_what_a_format_has_no_word_for_is_named(format: str, tmp_path: Path) -> None:
    pattern, ffn, said = UNSAID[format]
    ours = rt.LanguageModel(rt.ModelConfig(9, 32, [pattern], 2, ffn=ffn, tied_embeddings=False))
    with pytest.raises(rt.InputError, match=said):
        rt.save(ours, tmp_path, format=format)
    assert not list(tmp_path.iterdir())
