"""Kimi Linear: Kimi Delta Attention, layers of latent attention without positions between them, and experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ritornello.errors import CheckpointError, InputError
from ritornello.hub.architecture import Architecture
from ritornello.hub.delta_net import qkv_rows
from ritornello.hub.experts import DENSE, SPARSE, expert_rows, experts_of, names_of_mixers, with_experts
from ritornello.hub.llama import MLP, NORMS, ROWS
from ritornello.hub.settings import Key, Rule, Same, Settings, blocks
from ritornello.hub.table import Row, permuted, same, under

__all__ = ["KIMI_LINEAR"]

TYPES = {"linear_attention": ("kda", "gated_mlp"), "full_attention": ("latent_attention", "gated_mlp")}
LISTS = {"kda_layers": "linear_attention", "full_attn_layers": "full_attention"}
SIZES = {"num_heads": "linear_num_heads", "head_dim": "linear_head_dim",
         "short_conv_kernel_size": "linear_conv_kernel_dim"}  # fmt: skip
"""The authors' names, inside ``linear_attn_config``, and transformers'."""


def _told(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config says of KDA in the authors' way."""
    told = config.get("linear_attn_config") or {}
    if not isinstance(told, Mapping):
        raise ValueError(f"linear_attn_config = {told!r}; wanted an object")
    if more := sorted(set(told) - {*LISTS, *SIZES}):
        raise ValueError(f"linear_attn_config has {more[0]}, which is not supported")
    return told


def _size(ours: str, inner: str, default: int, written: bool = True) -> Rule:
    """A size of KDA: the authors' word counts where there are two."""
    return Rule(
        ours,
        lambda config: _told(config).get(inner, config.get(SIZES[inner], default)),
        SIZES[inner] if written else None,
        lambda settings: settings[ours],
        uses=("linear_attn_config", SIZES[inner]),
    )


def _shared(config: Mapping[str, Any]) -> int:
    """All shared experts are one that is as wide as they together."""
    return config.get("num_shared_experts", config.get("n_shared_experts", 1)) * config["moe_intermediate_size"]


def _count_of_shared(ours: Mapping[str, Any]) -> int:
    if ours["moe.shared"] is None:
        raise InputError("`shared` of moe is None; a checkpoint of format 'kimi_linear' has a shared expert.")
    return ours["moe.shared"] // ours["moe.hidden"]


KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("intermediate_size", "gated_mlp.hidden", 9216),
    Key("rms_norm_eps", ("norm_eps", "kda.norm_eps"), 1e-5),
    Key("num_attention_heads", "latent_attention.heads", 32),
    Key("kv_lora_rank", "latent_attention.rank", 512),
    Key("q_lora_rank", "latent_attention.query_rank", None),
    Key("qk_nope_head_dim", "latent_attention.key_size", 128),
    Key("qk_rope_head_dim", "latent_attention.shared_size", 64),
    Key("v_head_dim", "latent_attention.value_size", 128),
    Same("num_key_value_heads", lambda ours: ours["latent_attention.heads"]),
    Same("mla_use_nope", True, written=False),
    Same("attention_bias", False),
    _size("kda.heads", "num_heads", 32),
    _size("kda.key_size", "head_dim", 128),
    _size("kda.value_size", "head_dim", 128, written=False),
    _size("kda.conv_width", "short_conv_kernel_size", 4),
    Key("num_experts", "moe.experts", 256, older="num_local_experts"),
    Key("num_experts_per_token", "moe.top_k", 8, older="num_experts_per_tok"),
    Key("moe_intermediate_size", "moe.hidden", 1024),
    Rule("moe.shared", _shared, "num_shared_experts", _count_of_shared, uses=("n_shared_experts",)),
    Key("moe_renormalize", "moe.normalize", True, older="norm_topk_prob"),
    Key("routed_scaling_factor", "moe.scale", 2.446),
    Key("num_expert_group", "moe.groups", 1, older="n_group"),
    Key("topk_group", "moe.top_groups", 1),
    Same("moe_router_activation_func", "sigmoid", written=False),
    Same("moe_layer_freq", 1, written=False),
    Same("num_nextn_predict_layers", 0, written=False),
    Same("hidden_act", "silu", also=("swish",)),
    Same("tie_word_embeddings", False),
)


def _types(config: Mapping[str, Any]) -> list[str]:
    depth, told = range(config["num_hidden_layers"]), _told(config)
    mixers, ffns = config.get("layer_types"), config.get("mlp_layer_types")
    if mixers is None and set(LISTS) <= set(told):
        at = {i: kind for name, kind in LISTS.items() for i in told[name]}  # counted from 1
        if set(at) != {i + 1 for i in depth}:
            raise CheckpointError(
                f"The lists of the config's linear_attn_config hold {sorted(at)}; wanted each of 1 … {len(depth)}."
            )
        mixers = [at[i + 1] for i in depth]
    elif mixers is None:
        mixers = ["full_attention" if i and i % 4 == 0 else "linear_attention" for i in depth]
    if ffns is None:
        ffns = ["dense" if i < config.get("first_k_dense_replace", 1) else "sparse" for i in depth]
    for name, found in (("layer_types", mixers), ("mlp_layer_types", ffns)):
        if len(found) != len(depth):
            raise CheckpointError(f"The config has {name} of {len(found)} layers; num_hidden_layers is {len(depth)}.")
    ends = {"dense": DENSE, "sparse": SPARSE}
    return [mixer + ends.get(ffn, f" and {ffn}") for mixer, ffn in zip(mixers, ffns, strict=True)]


def _tell(names: Sequence[str]) -> dict[str, Any]:
    ffns = ["sparse" if sparse else "dense" for sparse in experts_of(names)]
    return {"layer_types": names_of_mixers(names), "mlp_layer_types": ffns}


def _kda(layer: Any) -> list[Row]:
    return [
        *qkv_rows(layer),
        same("f_a_proj.weight", "decay_proj.down.weight"),
        same("f_b_proj.weight", "decay_proj.up.weight"),
        permuted("A_log", "decay.A_log", lambda t: t.flatten(), lambda t: t.view(1, 1, -1, 1)),
        same("dt_bias", "decay.dt_bias"),
        same("b_proj.weight", "beta_proj.weight"),
        same("g_a_proj.weight", "gate_proj.down.weight"),
        same("g_b_proj.weight", "gate_proj.up.weight"),
        same("o_norm.weight", "norm.norm.weight"),
    ]


LATENT = (
    same("q_proj.weight"),
    same("q_a_proj.weight", "q_proj.down.weight"),
    same("q_a_layernorm.weight", "q_proj.activation.weight"),
    same("q_b_proj.weight", "q_proj.up.weight"),
    same("kv_a_proj_with_mqa.weight", "kv_down.weight"),
    same("kv_a_layernorm.weight", "kv_norm.weight"),
    same("kv_b_proj.weight", "kv_up.weight"),
    same("o_proj.weight", "out_proj.weight"),
)


def _experts(layer: Any) -> list[Row]:
    return [
        same("gate.weight", "router.weight"),
        same("gate.e_score_correction_bias", "choice_bias"),
        *under("shared_experts.", "shared_expert.", MLP),
        *expert_rows(layer, "w1", "w3", "w2"),
    ]


def _mlp(layer: Any) -> list[Row]:
    """transformers puts these where the experts of other blocks are, and reads both."""
    named = zip(under("mlp.", "", MLP), under("block_sparse_moe.", "", MLP), strict=True)
    return [replace(row, older=older) for row, older in named]


KIMI_LINEAR = Architecture(
    name="kimi_linear",
    model="KimiLinearForCausalLM",
    settings=Settings(
        KEYS,
        **blocks(with_experts(TYPES), _types, _tell),
        ignored=(
            "first_k_dense_replace", "head_dim", "layer_types", "mlp_layer_types", "model_max_length",
            "output_router_logits", "qk_head_dim", "rope_parameters", "rope_scaling", "rope_theta", "use_grouped_topk",
        ),
        fixed={
            "tied_embeddings": False, "kda.gate_bias": False, "latent_attention.rope_base": None,
            "latent_attention.norm_eps": 1e-6, "moe.routing": "sigmoid", "moe.choice_bias": True,
            "moe.normalize_eps": 1e-20,
        },
        consumed=("linear_attn_config",),
    ),
    rows=ROWS,
    block=NORMS,
    layers={
        "kda": ("model.layers.{i}.self_attn.", _kda),
        "latent_attention": ("model.layers.{i}.self_attn.", LATENT),
        "gated_mlp": ("model.layers.{i}.", _mlp),
        "moe": ("model.layers.{i}.block_sparse_moe.", _experts),
    },
)  # fmt: skip
