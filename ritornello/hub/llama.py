"""Llama as transformers keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ritornello.hub.architecture import Architecture
from ritornello.hub.rotary import SCALING, rope_base
from ritornello.hub.settings import Key, Rule, Same, Settings, uniform
from ritornello.hub.table import Row, joined, same

__all__ = ["ATTENTION", "LLAMA", "MLP", "NORMS", "ROPE", "ROWS", "key_value_heads"]


def key_value_heads(default: int) -> Rule:
    """As many as there are heads where a config says null, `default` where it says nothing."""

    def read(config: Mapping[str, Any]) -> int | None:
        told = config.get("num_key_value_heads", default)
        return config.get("num_attention_heads") if told is None else told

    return Rule("attention.kv_heads", read, "num_key_value_heads", lambda ours: ours["attention.kv_heads"])


ROPE = (rope_base(10_000.0), *SCALING)
KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("intermediate_size", "gated_mlp.hidden"),
    Key("num_attention_heads", "attention.heads"),
    Key("num_key_value_heads", "attention.kv_heads", None),
    Key("head_dim", "attention.key_size", None),
    Key("rms_norm_eps", "norm_eps", 1e-6),
    Key("tie_word_embeddings", "tied_embeddings", False),
    *ROPE,
    Same("hidden_act", "silu", also=("swish",)),
    Key("attention_bias", ("attention.bias", "attention.out_bias"), False),
    Key("mlp_bias", "gated_mlp.bias", False),
    Same("rope_interleaved", False, written=False),
)
ROWS = (
    same("model.embed_tokens.weight", "embedding.weight"),
    same("model.norm.weight", "backbone.final_norm.weight"),
    same("lm_head.weight", "head.weight"),
)
NORMS = (
    same("model.layers.{i}.input_layernorm.weight", "backbone.blocks.{i}.mixer_norm.weight"),
    same("model.layers.{i}.post_attention_layernorm.weight", "backbone.blocks.{i}.ffn_norm.weight"),
)
ATTENTION: tuple[Row, ...] = tuple(
    row
    for part in ("weight", "bias")
    for row in (
        same(f"q_proj.{part}"),
        joined((f"k_proj.{part}", f"v_proj.{part}"), f"kv_proj.{part}"),
        same(f"o_proj.{part}", f"out_proj.{part}"),
    )
)
MLP: tuple[Row, ...] = tuple(
    row
    for part in ("weight", "bias")
    for row in (
        joined((f"gate_proj.{part}", f"up_proj.{part}"), f"gate_up_proj.{part}"),
        same(f"down_proj.{part}", f"out_proj.{part}"),
    )
)
LLAMA = Architecture(
    name="llama",
    model="LlamaForCausalLM",
    settings=Settings(KEYS, **uniform("attention", "gated_mlp"), ignored=("is_llama_config", "max_sequence_length")),
    rows=ROWS,
    block=NORMS,
    layers={
        "attention": ("model.layers.{i}.self_attn.", ATTENTION),
        "gated_mlp": ("model.layers.{i}.mlp.", MLP),
    },
)
