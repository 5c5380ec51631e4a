"""Named recipes: the hybrids that people publish, as a pattern at any width and depth.

    rt.models.recipe("griffin", vocab_size=256, width=256, depth=12)          # a ModelConfig
    rt.models.recipe("xlstm[7:1]", vocab_size=256, width=256, depth=8, dropout=0.1)

A recipe says which layers stand where, with the windows, gates and norms of its authors; sizes that it leaves open
follow from the width, as they do for every layer.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ritornello.errors import InputError, nearest
from ritornello.layers.parts.sizes import heads_for, multiple
from ritornello.models.config import ModelConfig, Parallel

__all__ = ["Recipe", "recipe", "recipes"]

Fields = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """A published architecture.

    Args:
        about: what stands where.
        paper: its source.
        fields: (width, depth) → the fields of its ModelConfig, but for vocabulary, width and depth.
        period: after how many blocks its pattern begins again: the depth where none is given.
    """

    about: str
    paper: str
    fields: Callable[[int, int], Fields]
    period: int


def recipes() -> dict[str, Recipe]:
    """Name → recipe, sorted by name. ``xlstm[a:b]`` stands for all a and b."""
    return dict(sorted(_RECIPES.items()))


def recipe(name: str, vocab_size: int, width: int, depth: int | None = None, **changes: Any) -> ModelConfig:
    """The config of a published architecture.

    Args:
        name: one of `recipes()`; ``"xlstm[7:1]"`` for seven mLSTM blocks to one sLSTM block.
        vocab_size: how many tokens there are.
        width: of the residual stream.
        depth: how many blocks; one period of the pattern where None.
        changes: fields of ModelConfig that are to be others than the recipe's.

    Raises:
        InputError: an unknown name; the nearest is offered.
    """
    ratio = re.fullmatch(r"xlstm\[(\d+):(\d+)\]", name)
    if ratio and (int(ratio[1]) or int(ratio[2])):
        found = _xlstm(int(ratio[1]), int(ratio[2]))
    elif name in _RECIPES and name != "xlstm[a:b]":
        found = _RECIPES[name]
    else:
        raise InputError(f"There is no recipe {name!r}. {nearest(name, _RECIPES)}")
    depth = found.period if depth is None else depth
    fields = {**found.fields(width, depth), **changes}
    return ModelConfig(vocab_size=vocab_size, width=width, depth=depth, **fields)


# ------------------------------------------------------------------------------------------------------- the recipes


def _griffin(width: int, depth: int) -> Fields:
    heads = heads_for(width)
    attention = {
        "heads": heads,
        "kv_heads": 1,
        "window": 2048,
        "rope_size": width // heads // 4 * 2,  # half of a head's channels, in pairs
        "out_bias": True,
    }
    recurrent = ("rg_lru", {"state_size": width, "heads": heads})
    return {
        "pattern": [recurrent, recurrent, ("attention", attention)],
        "ffn": ("gated_mlp", {"expand": 3, "activation": "gelu_tanh", "bias": True}),
        "norm": "zero_centred_rms_norm",
        "embedding_scale": torch.tensor(width**0.5, dtype=torch.bfloat16).item(),  # as the authors' code keeps it
        "logits_soft_cap": 30.0,
    }


def _samba(width: int, depth: int) -> Fields:
    return {"pattern": ["mamba", ("attention", {"window": 2048})]}


def _based(width: int, depth: int) -> Fields:
    return {"pattern": ["short_conv", "based", ("attention", {"window": 64})]}


def _jamba(width: int, depth: int) -> Fields:
    mamba = ("mamba", {"norm_eps": 1e-6, "norm_weights": True})
    return {
        "pattern": [("attention", {"rope_size": 0}) if i == 4 else mamba for i in range(8)],
        "ffn": ["gated_mlp", ("moe", {"experts": 16, "top_k": 2, "normalize": False})],
        "tied_embeddings": False,
    }


def _qwen3_5(width: int, depth: int) -> Fields:
    turned = width // heads_for(width) // 8 * 2  # a quarter of a head's channels, in pairs
    attention = {"gate": True, "qk_norm": "head", "zero_centred": True, "rope_size": turned}
    return {
        "pattern": [("gated_delta_net", {"norm_eps": 1e-6})] * 3 + [("attention", attention)],
        "norm": "zero_centred_rms_norm",
        "tied_embeddings": False,
    }


def _qwen3_next(width: int, depth: int) -> Fields:
    hidden = multiple(width / 4, 32)
    experts = {"experts": 16, "top_k": 4, "hidden": hidden, "shared": hidden, "shared_gate": True}
    return {**_qwen3_5(width, depth), "ffn": ("moe", experts)}


def _kimi_linear(width: int, depth: int) -> Fields:
    hidden = multiple(width / 4, 32)
    experts = {"experts": 16, "top_k": 4, "hidden": hidden, "shared": hidden, "routing": "sigmoid", "scale": 2.446}
    chosen = {"choice_bias": True, "normalize_eps": 1e-20}
    return {
        "pattern": [("kda", {"gate_bias": False})] * 3 + [("latent_attention", {"rope_base": None})],
        "ffn": ["gated_mlp", *[("moe", experts | chosen)] * (depth - 1)],
        "norm_eps": 1e-5,
        "tied_embeddings": False,
    }


def _olmo_hybrid(width: int, depth: int) -> Fields:
    delta = ("gated_delta_net", {"negative_eigenvalues": True})
    return {
        "pattern": [delta] * 3 + [("attention", {"rope_size": 0, "qk_norm": "all"})],
        "norm_after": ("attention",),
        "tied_embeddings": False,
    }


def _falcon_h1(width: int, depth: int) -> Fields:
    return {"pattern": [Parallel(("mamba2", {"norm_eps": 1e-5}), "attention", combine="sum")], "norm_eps": 1e-5}


def _hymba(width: int, depth: int) -> Fields:
    everything = {0, depth // 2, depth - 1}
    attention = [("attention", {} if i in everything else {"window": 1024}) for i in range(depth)]
    return {"pattern": [Parallel(a, "mamba") for a in attention]}


def _wuneng(width: int, depth: int) -> Fields:
    return {"pattern": [Parallel("attention", "rwkv7")]}


def _lfm2(width: int, depth: int) -> Fields:
    return {"pattern": ["short_conv", "short_conv", ("attention", {"qk_norm": "head", "rope_base": 1e6})]}


def _xlstm(mlstm: int, slstm: int) -> Recipe:
    def fields(width: int, depth: int) -> Fields:
        pattern = ["mlstm"] * mlstm + ["slstm"] * slstm
        return {"pattern": pattern, "logits_soft_cap": 30.0, "tied_embeddings": False}

    return Recipe(
        "a mLSTM blocks, then b sLSTM blocks, with xLSTM 7B's feed-forward and soft caps",
        "Beck et al. 2024, xLSTM: Extended Long Short-Term Memory, arXiv:2405.04517",
        fields,
        mlstm + slstm,
    )


_RECIPES = {
    "griffin": Recipe(
        "two RG-LRU blocks, then attention over a window of 2,048 steps with one key head, as in RecurrentGemma",
        "De et al. 2024, Griffin, arXiv:2402.19427; Botev et al. 2024, RecurrentGemma, arXiv:2404.07839",
        _griffin,
        3,
    ),
    "samba": Recipe(
        "Mamba and attention over a window of 2,048 steps in turns",
        "Ren et al. 2024, Samba, arXiv:2406.07522",
        _samba,
        2,
    ),
    "based": Recipe(
        "gated short convolution, Taylor linear attention, attention over a window of 64 steps",
        "Arora et al. 2024, Simple linear attention language models balance the recall-throughput tradeoff, "
        "arXiv:2402.18668",
        _based,
        3,
    ),
    "jamba": Recipe(
        "one layer of attention without positions among eight, the others Mamba; experts in every other feed-forward",
        "Lieber et al. 2024, Jamba, arXiv:2403.19887",
        _jamba,
        8,
    ),
    "qwen3_next": Recipe(
        "three Gated DeltaNet blocks, then gated attention; 16 experts and a shared one in every feed-forward",
        "Qwen Team 2025, Qwen3-Next; as in transformers' qwen3_next",
        _qwen3_next,
        4,
    ),
    "qwen3_5": Recipe(
        "three Gated DeltaNet blocks, then gated attention",
        "Qwen Team 2026, Qwen3.5; as in transformers' qwen3_5",
        _qwen3_5,
        4,
    ),
    "kimi_linear": Recipe(
        "three KDA blocks, then latent attention without positions; an MLP in the first, 16 experts and a shared one "
        "in the others",
        "Kimi Team 2025, Kimi Linear, arXiv:2510.26692; as in transformers' kimi_linear",
        _kimi_linear,
        4,
    ),
    "olmo_hybrid": Recipe(
        "three Gated DeltaNet blocks with negative eigenvalues, then attention without positions, normed after",
        "Ai2 2026, OLMo Hybrid; as in transformers' olmo_hybrid",
        _olmo_hybrid,
        4,
    ),
    "falcon_h1": Recipe(
        "attention and Mamba-2 side by side in every block, summed",
        "Zuo et al. 2025, Falcon-H1, arXiv:2507.22448",
        _falcon_h1,
        1,
    ),
    "hymba": Recipe(
        "attention and Mamba side by side in every block, averaged; the first, middle and last see all, the others a "
        "window of 1,024 steps. Without its meta tokens and norms of the sides",
        "Dong et al. 2024, Hymba, arXiv:2411.13676",
        _hymba,
        3,
    ),
    "wuneng": Recipe(
        "attention and RWKV-7 side by side in every block, averaged. Without its middle heads",
        "Xiao et al. 2025, WuNeng: Hybrid State with Attention, arXiv:2504.19191",
        _wuneng,
        1,
    ),
    "lfm2": Recipe(
        "two gated short convolutions, then attention",
        "Liquid AI 2025, LFM2 Technical Report, arXiv:2511.23404",
        _lfm2,
        3,
    ),
    "xlstm[a:b]": _xlstm(7, 1),
}
