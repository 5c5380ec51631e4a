"""Jamba: Mamba with a layer of attention here and there, and a mixture of experts in every other feed-forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ritornello.errors import CheckpointError, InputError
from ritornello.hub.architecture import Architecture
from ritornello.hub.experts import expert_rows
from ritornello.hub.llama import ATTENTION, MLP, key_value_heads
from ritornello.hub.mamba import MIXER
from ritornello.hub.settings import Key, Same, Settings, blocks
from ritornello.hub.table import same

__all__ = ["HYBRID_BLOCK", "HYBRID_ROWS", "JAMBA"]

KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("intermediate_size", ("gated_mlp.hidden", "moe.hidden")),
    Key("num_attention_heads", "attention.heads"),
    key_value_heads(8),
    Key("head_dim", "attention.key_size", None),
    Key("num_experts", "moe.experts", 16),
    Key("num_experts_per_tok", "moe.top_k", 2),
    Key("mamba_d_state", "mamba.state_size", 16),
    Key("mamba_d_conv", "mamba.conv_width", 4),
    Key("mamba_expand", "mamba.expand", 2),
    Key("mamba_dt_rank", "mamba.dt_rank", None, read=lambda rank: None if rank == "auto" else rank),
    Key("mamba_conv_bias", "mamba.conv_bias", True),
    Key("mamba_proj_bias", "mamba.bias", False),
    Key("rms_norm_eps", ("norm_eps", "mamba.norm_eps"), 1e-6),
    Key("tie_word_embeddings", "tied_embeddings", False),
    Same("hidden_act", "silu", also=("swish",)),
    Same("sliding_window", None, written=False),
    Same("mamba_inner_layernorms", True, written=False),
)
TYPES = {f"{mixer} {ffn}": (mixer, ffn) for mixer in ("mamba", "attention") for ffn in ("gated_mlp", "moe")}
CYCLES = {"attn_layer": (8, 4), "expert_layer": (2, 1)}
"""The period and the offset where a config says none."""


def _read(config: Mapping[str, Any]) -> list[str]:
    attention, expert = (
        [_every(config, name, i) for i in range(config.get("num_hidden_layers") or 0)] for name in CYCLES
    )
    several = config.get("num_experts", 16) > 1
    return [
        f"{'attention' if a else 'mamba'} {'moe' if e and several else 'gated_mlp'}"
        for a, e in zip(attention, expert, strict=True)
    ]


def _every(config: Mapping[str, Any], name: str, i: int) -> bool:
    period, offset = (config.get(f"{name}_{n}", d) for n, d in zip(("period", "offset"), CYCLES[name], strict=True))
    if not isinstance(period, int) or period < 1:
        raise CheckpointError(f"The config has {name}_period = {period!r}; wanted a positive integer.")
    return i % period == offset


def _tell(names: Sequence[str]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for cycle, word in zip(CYCLES, ("attention", "moe"), strict=True):
        there = [i for i, name in enumerate(names) if word in name.split()]
        # Where there is none, one that comes after the last; where there is one only, the next would as well.
        offset = there[0] if there else len(names)
        period = there[1] - there[0] if len(there) > 1 else max(len(names), offset) + 1
        if there != list(range(offset, len(names), period)) or offset >= period:
            raise InputError(f"The blocks with {word} do not recur every so many, as a checkpoint of Jamba says it.")
        told |= {f"{cycle}_period": period, f"{cycle}_offset": offset}
    return told | ({} if any("moe" in name for name in names) else {"num_experts": 1})


HYBRID_ROWS = (
    same("model.embed_tokens.weight", "embedding.weight"),
    same("model.final_layernorm.weight", "backbone.final_norm.weight"),
    same("lm_head.weight", "head.weight"),
)
HYBRID_BLOCK = (
    same("model.layers.{i}.input_layernorm.weight", "backbone.blocks.{i}.mixer_norm.weight"),
    same("model.layers.{i}.pre_ff_layernorm.weight", "backbone.blocks.{i}.ffn_norm.weight"),
)
NORMS = (("dt_layernorm.weight", "rank_norm"), ("b_layernorm.weight", "B_norm"), ("c_layernorm.weight", "C_norm"))
JAMBA = Architecture(
    name="jamba",
    model="JambaForCausalLM",
    settings=Settings(
        KEYS,
        **blocks(TYPES, _read, _tell),
        ignored=(
            "calc_logits_for_entire_prompt", "n_ctx", "num_logits_to_keep", "output_router_logits",
            "router_aux_loss_coef", "use_associative_scan", "use_mamba_kernels", "use_mambapy",
        ),
        fixed={"attention.rope_size": 0, "mamba.norm_weights": True, "moe.normalize": False},
    ),
    rows=HYBRID_ROWS,
    block=HYBRID_BLOCK,
    layers={
        "mamba": ("model.layers.{i}.mamba.", (*MIXER, *(same(*pair) for pair in NORMS))),
        "attention": ("model.layers.{i}.self_attn.", ATTENTION),
        "gated_mlp": ("model.layers.{i}.feed_forward.", MLP),
        "moe": ("model.layers.{i}.feed_forward.", lambda layer: [same("router.weight"), *expert_rows(layer)]),
    },
)  # fmt: skip
