"""OLMo Hybrid: gated delta rules that are normed before, and layers of attention that are normed after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ritornello.hub.architecture import Architecture
from ritornello.hub.delta_net import gated_rows
from ritornello.hub.llama import ATTENTION, MLP, ROWS
from ritornello.hub.rotary import SCALING, base_of
from ritornello.hub.settings import Key, Rule, Same, Settings, blocks
from ritornello.hub.table import Row, same

__all__ = ["OLMO_HYBRID"]

TYPES = {"linear_attention": ("gated_delta_net", "gated_mlp"), "full_attention": ("attention", "gated_mlp")}


def _types(config: Mapping[str, Any]) -> Sequence[str]:
    if config.get("layer_types") is not None:
        return config["layer_types"]
    depth = config["num_hidden_layers"]
    found = ["full_attention" if i % 4 == 3 else "linear_attention" for i in range(depth)]
    return found if depth > 3 else [*found[:-1], "full_attention"]


def _key_heads(config: Mapping[str, Any]) -> int:
    return config.get("linear_num_key_heads") or config["num_attention_heads"]


def _key_size(config: Mapping[str, Any]) -> int:
    return config.get("linear_key_head_dim") or int(0.75 * config["hidden_size"] / _key_heads(config))


def _rope_size(config: Mapping[str, Any]) -> int:
    """Released models tell no positions: the base of the rotation is there, and null."""
    return 0 if base_of(config, 10_000.0) is None else config["hidden_size"] // config["num_attention_heads"]


def _rope_base(ours: Mapping[str, Any]) -> float | None:
    return ours["attention.rope_base"] if ours["attention.rope_size"] else None


def _told(name: str, ours: str, read: Any) -> Rule:
    return Rule(ours, read, name, lambda settings: settings[ours])


KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("intermediate_size", "gated_mlp.hidden"),
    Key("num_attention_heads", "attention.heads"),
    Key("num_key_value_heads", "attention.kv_heads", None),
    Key("attention_bias", ("attention.bias", "attention.out_bias"), False),
    Rule("attention.rope_size", _rope_size, "rope_parameters.rope_theta", _rope_base),
    Rule("attention.rope_base", lambda c: base_of(c, 10_000.0) or 10_000.0, uses=("rope_theta",)),
    *SCALING,
    Key("rms_norm_eps", ("norm_eps", "attention.norm_eps"), 1e-6),
    Key("tie_word_embeddings", "tied_embeddings", False),
    _told("linear_num_key_heads", "gated_delta_net.heads", _key_heads),
    _told(
        "linear_num_value_heads",
        "gated_delta_net.value_heads",
        lambda c: c.get("linear_num_value_heads") or c["num_attention_heads"],
    ),
    _told("linear_key_head_dim", "gated_delta_net.key_size", _key_size),
    _told(
        "linear_value_head_dim",
        "gated_delta_net.value_size",
        lambda c: c.get("linear_value_head_dim") or 2 * _key_size(c),
    ),
    Key("linear_conv_kernel_dim", "gated_delta_net.conv_width", 4),
    Key("linear_allow_neg_eigval", "gated_delta_net.negative_eigenvalues", True),
    Same("hidden_act", "silu", also=("swish",)),
    Same("linear_use_gate", True, written=False),
)


def _delta(layer: Any) -> list[Row]:
    return gated_rows(layer, pooled=True)  # transformers saves the three convolutions in equal parts


def _norms(block: Any) -> list[Row]:
    """By the names that transformers writes, and by others: those of released files before a delta rule, and what
    transformers, when it saves a block of attention, gives its first norm, which is another block's second."""
    if block.norm_after:
        names = (("post_attention_layernorm", "feedforward_layer_norm"), ("post_feedforward_layernorm", None))
    else:
        names = (("attention_layer_norm", "input_layernorm"), ("feedforward_layer_norm", "post_attention_layernorm"))
    at = "model.layers.{i}."
    return [
        same(f"{at}{theirs}.weight", f"backbone.blocks.{{i}}.{ours}.weight", older and f"{at}{older}.weight")
        for (theirs, older), ours in zip(names, ("mixer_norm", "ffn_norm"), strict=True)
    ]


OLMO_HYBRID = Architecture(
    name="olmo_hybrid",
    model="OlmoHybridForCausalLM",
    settings=Settings(
        KEYS,
        **blocks(TYPES, _types),
        ignored=(
            "layer_types", "linear_a_log_max", "linear_a_log_min", "linear_dt_init_floor", "linear_dt_max",
            "linear_dt_min",
        ),
        fixed={"norm_after": ("attention",), "attention.qk_norm": "all"},
    ),
    rows=ROWS,
    block=_norms,
    layers={
        "gated_delta_net": ("model.layers.{i}.linear_attn.", _delta),
        "attention": (
            "model.layers.{i}.self_attn.",
            (*ATTENTION, same("q_norm.weight"), same("k_norm.weight")),
        ),
        "gated_mlp": ("model.layers.{i}.mlp.", MLP),
    },
)  # fmt: skip
