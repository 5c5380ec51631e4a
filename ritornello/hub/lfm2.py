"""LFM2: gated short convolutions, and layers of attention between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ritornello.hub.architecture import Architecture
from ritornello.hub.rotary import SCALING, rope_base
from ritornello.hub.settings import Key, Rule, Same, Settings, blocks
from ritornello.hub.table import joined, same, squeezed

__all__ = ["LFM2"]


def _hidden(config: Mapping[str, Any]) -> int:
    """The channels of the feed-forward; many configs tell them before their adjustment."""
    size = config.get("block_ff_dim") or config.get("intermediate_size")
    if not isinstance(size, int):
        raise ValueError(f"intermediate_size is {size!r}")
    if not config.get("block_auto_adjust_ff_dim", True):
        return size
    size, factor = int(2 * size / 3), config.get("block_ffn_dim_multiplier", 1.0)
    of = config.get("block_multiple_of", 256)
    return size if factor is None else -(-int(factor * size) // of) * of


def _tied(config: Mapping[str, Any]) -> bool:
    """The older name counts where both are told."""
    told = config.get("tie_embedding", config.get("tie_word_embeddings", True))
    if not isinstance(told, bool):
        raise ValueError(f"{told!r}; wanted true or false")
    return told


def _types(config: Mapping[str, Any]) -> Sequence[str]:
    if config.get("layer_types") is not None:
        return config["layer_types"]
    attention = config.get("full_attn_idxs")
    depth = range(config["num_hidden_layers"])
    return ["full_attention" if attention is None or i in attention else "conv" for i in depth]


KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Rule(
        "gated_mlp.hidden",
        _hidden,
        "intermediate_size",
        lambda ours: ours["gated_mlp.hidden"],
        uses=("block_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of"),
    ),
    Same("block_auto_adjust_ff_dim", False, also=(True,)),
    Key("num_attention_heads", "attention.heads"),
    Key("num_key_value_heads", "attention.kv_heads", 8),
    Key("conv_L_cache", "short_conv.conv_width", 3),
    Key("conv_bias", "short_conv.bias", False),
    Key("norm_eps", ("norm_eps", "attention.norm_eps"), 1e-5),
    Rule("tied_embeddings", _tied, "tie_word_embeddings", lambda ours: ours["tied_embeddings"], ("tie_embedding",)),
    Same("block_use_swiglu", True, written=False),
    rope_base(1_000_000.0),
    *SCALING,
)
LFM2 = Architecture(
    name="lfm2",
    model="Lfm2ForCausalLM",
    settings=Settings(
        KEYS,
        **blocks(
            {"conv": ("short_conv", "gated_mlp"), "full_attention": ("attention", "gated_mlp")},
            _types,
        ),
        ignored=(
            "block_dim", "block_mlp_init_scale", "block_norm_eps", "block_out_init_scale", "block_use_xavier_init",
            "conv_dim", "conv_dim_out", "conv_use_xavier_init", "full_attn_idxs", "layer_types", "num_heads", "theta",
            "use_pos_enc",
        ),
        fixed={"attention.qk_norm": "head"},
    ),
    rows=(
        same("model.embed_tokens.weight", "embedding.weight"),
        same("model.embedding_norm.weight", "backbone.final_norm.weight"),
        same("lm_head.weight", "head.weight"),
    ),
    block=(
        same("model.layers.{i}.operator_norm.weight", "backbone.blocks.{i}.mixer_norm.weight"),
        same("model.layers.{i}.ffn_norm.weight", "backbone.blocks.{i}.ffn_norm.weight"),
    ),
    layers={
        "short_conv": (
            "model.layers.{i}.conv.",
            [same(f"{part}.{kind}") for part in ("in_proj", "out_proj") for kind in ("weight", "bias")]
            + [squeezed("conv.weight", "conv.weight"), same("conv.bias")],
        ),
        "attention": (
            "model.layers.{i}.self_attn.",
            (
                same("q_proj.weight"),
                joined(("k_proj.weight", "v_proj.weight"), "kv_proj.weight"),
                same("q_layernorm.weight", "q_norm.weight"),
                same("k_layernorm.weight", "k_norm.weight"),
                same("out_proj.weight"),
            ),
        ),
        "gated_mlp": (
            "model.layers.{i}.feed_forward.",
            (joined(("w1.weight", "w3.weight"), "gate_up_proj.weight"), same("w2.weight", "out_proj.weight")),
        ),
    },
)  # fmt: skip
