"""LFM2: gated short convolutions, and layers of attention between them; in LFM2-MoE with experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ritornello.errors import InputError
from ritornello.hub.architecture import Architecture
from ritornello.hub.experts import DENSE, SPARSE, expert_rows, experts_of, names_of_mixers, with_experts
from ritornello.hub.rotary import SCALING, rope_base
from ritornello.hub.settings import Key, Rule, Same, Settings, blocks
from ritornello.hub.table import Row, joined, same, squeezed

__all__ = ["LFM2", "LFM2_MOE"]


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
    Key("num_attention_heads", "attention.heads"),
    Key("num_key_value_heads", "attention.kv_heads", 8),
    Key("conv_L_cache", "short_conv.conv_width", 3),
    Key("conv_bias", "short_conv.bias", False),
    Key("norm_eps", ("norm_eps", "attention.norm_eps"), 1e-5),
    Rule("tied_embeddings", _tied, "tie_word_embeddings", lambda ours: ours["tied_embeddings"], ("tie_embedding",)),
    rope_base(1_000_000.0),
    *SCALING,
)
TYPES = {"conv": ("short_conv", "gated_mlp"), "full_attention": ("attention", "gated_mlp")}
LFM2 = Architecture(
    name="lfm2",
    model="Lfm2ForCausalLM",
    settings=Settings(
        (
            *KEYS,
            Rule(
                "gated_mlp.hidden",
                _hidden,
                "intermediate_size",
                lambda ours: ours["gated_mlp.hidden"],
                uses=("block_ff_dim", "block_ffn_dim_multiplier", "block_multiple_of"),
            ),
            Same("block_auto_adjust_ff_dim", False, also=(True,)),
            Same("block_use_swiglu", True, written=False),
        ),
        **blocks(TYPES, _types),
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


def _types_of_both(config: Mapping[str, Any]) -> list[str]:
    dense = config.get("num_dense_layers", 2)
    return [name + (DENSE if i < dense else SPARSE) for i, name in enumerate(_types(config))]


def _tell_both(names: Sequence[str]) -> dict[str, Any]:
    sparse = experts_of(names)
    if sparse != sorted(sparse):
        raise InputError("A block with an MLP follows one with experts, which a checkpoint of LFM2-MoE cannot say.")
    return {"layer_types": names_of_mixers(names), "num_dense_layers": sparse.count(False)}


def _experts(layer: Any) -> list[Row]:
    return [
        same("gate.weight", "router.weight"),
        same("expert_bias", "choice_bias"),
        *expert_rows(layer, "w1", "w3", "w2"),
    ]


LFM2_MOE = replace(
    LFM2,
    name="lfm2_moe",
    model="Lfm2MoeForCausalLM",
    settings=Settings(
        (
            *KEYS,
            Key("intermediate_size", "gated_mlp.hidden", 7168),
            Key("moe_intermediate_size", "moe.hidden", 1792),
            Key("num_experts", "moe.experts", 32),
            Key("num_experts_per_tok", "moe.top_k", 4),
            Key("norm_topk_prob", "moe.normalize", True),
            Key("use_expert_bias", "moe.choice_bias", True),
            Key("routed_scaling_factor", "moe.scale", 1.0),
        ),
        **blocks(with_experts(TYPES), _types_of_both, _tell_both),
        ignored=("full_attn_idxs", "layer_types", "num_dense_layers", "output_router_logits", "theta"),
        fixed={**LFM2.settings.fixed, "moe.routing": "sigmoid", "moe.normalize_eps": 1e-6},
    ),
    layers={**LFM2.layers, "moe": ("model.layers.{i}.feed_forward.", _experts)},
)
