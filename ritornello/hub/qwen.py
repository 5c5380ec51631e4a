"""Qwen3-Next and the text models of Qwen3.5: gated delta rules, and layers of gated attention between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ritornello.hub.architecture import Architecture
from ritornello.hub.base import Format
from ritornello.hub.experts import DENSE, SPARSE, expert_rows, experts_of, names_of_mixers, with_experts
from ritornello.hub.llama import MLP, ROPE
from ritornello.hub.rotary import partial_rotary
from ritornello.hub.settings import Key, Same, Settings, blocks
from ritornello.hub.table import Row, joined, same, squeezed, under
from ritornello.typing import Tensor

__all__ = ["QWEN3_5", "QWEN3_5_MOE", "QWEN3_5_MOE_WITH_VISION", "QWEN3_5_WITH_VISION", "QWEN3_NEXT"]


def _types(config: Mapping[str, Any]) -> Sequence[str]:
    if config.get("layer_types") is not None:
        return config["layer_types"]
    every = config.get("full_attention_interval", 4)
    return ["linear_attention" if (i + 1) % every else "full_attention" for i in range(config["num_hidden_layers"])]


_DELTA_SIZES = (
    Key("linear_num_key_heads", "gated_delta_net.heads", 16),
    Key("linear_num_value_heads", "gated_delta_net.value_heads", 32),
    Key("linear_key_head_dim", "gated_delta_net.key_size", 128),
    Key("linear_value_head_dim", "gated_delta_net.value_size", 128),
    Key("linear_conv_kernel_dim", "gated_delta_net.conv_width", 4),
)
KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("num_attention_heads", "attention.heads", 16),
    Key("head_dim", "attention.key_size", 256),
    Key("attention_bias", ("attention.bias", "attention.out_bias"), False),
    Key("rms_norm_eps", ("norm_eps", "attention.norm_eps", "gated_delta_net.norm_eps"), 1e-6),
    Key("tie_word_embeddings", "tied_embeddings", False),
    *_DELTA_SIZES,
    *ROPE,
    partial_rotary(0.25, head_dim=256),
    Same("hidden_act", "silu", also=("swish",)),
)
FIXED = {
    "norm": "zero_centred_rms_norm",
    "attention.qk_norm": "head",
    "attention.zero_centred": True,
    "attention.gate": True,
}
ROWS = (
    same("model.embed_tokens.weight", "embedding.weight"),
    same("model.norm.weight", "backbone.final_norm.weight"),
    same("lm_head.weight", "head.weight"),
)
BLOCK = (
    same("model.layers.{i}.input_layernorm.weight", "backbone.blocks.{i}.mixer_norm.weight"),
    same("model.layers.{i}.post_attention_layernorm.weight", "backbone.blocks.{i}.ffn_norm.weight"),
)


def _interleaved(theirs: str, ours: Sequence[str], groups: int, sizes: Sequence[int]) -> Row:
    """Their rows stand in `groups`, each with `sizes` rows of one of ours after the other; ours stand one by one.

    Where there are more sizes than names, the last name takes what remains.
    """

    def read(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        parts = [p.flatten(0, 1) for p in tensors[0].unflatten(0, (groups, -1)).split(list(sizes), 1)]
        first = len(sizes) - len(ours) + 1
        return [torch.cat(parts[:first]), *parts[first:]]

    def write(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        first = len(sizes) - len(ours) + 1
        joint = tensors[0].split([groups * size for size in sizes[:first]])
        parts = [t.unflatten(0, (groups, -1)) for t in (*joint, *tensors[1:])]
        return (torch.cat(parts, 1).flatten(0, 1),)

    return Row((theirs,), tuple(ours), read, write)


def _attention(layer: Any) -> list[Row]:
    rows = [same("q_norm.weight"), same("k_norm.weight")]
    for part in ("weight", "bias"):
        ours = (f"q_proj.{part}", f"gate_proj.{part}")
        rows += [
            _interleaved(f"q_proj.{part}", ours, layer.heads, (layer.key_size, layer.key_size)),
            joined((f"k_proj.{part}", f"v_proj.{part}"), f"kv_proj.{part}"),
            same(f"o_proj.{part}", f"out_proj.{part}"),
        ]
    return rows


DELTA = (
    same("A_log", "decay.A_log"),
    same("dt_bias", "decay.dt_bias"),
    squeezed("conv1d.weight", "conv.weight"),
    same("norm.weight", "norm.norm.weight"),
    same("out_proj.weight"),
)


def _delta_of_groups(layer: Any) -> list[Row]:
    """Queries, keys, values and gates stand together by key heads, and so do β and the decays."""
    heads, key = layer.size.heads, layer.size.key_size
    shared = layer.size.value_heads // heads
    value = shared * layer.size.value_size
    ba = Row(
        ("in_proj_ba.weight",),
        ("ab_proj.weight",),
        lambda t: (t[0].unflatten(0, (heads, 2, shared)).transpose(0, 1).flip(0).flatten(0, 2),),
        lambda t: (t[0].unflatten(0, (2, heads, shared)).flip(0).transpose(0, 1).flatten(0, 2),),
    )
    names = ("qkv_proj.weight", "gate_proj.weight")
    return [*DELTA, _interleaved("in_proj_qkvz.weight", names, heads, (key, key, value, value)), ba]


DELTA_IN_PARTS = (
    *DELTA,
    same("in_proj_qkv.weight", "qkv_proj.weight"),
    same("in_proj_z.weight", "gate_proj.weight"),
    joined(("in_proj_a.weight", "in_proj_b.weight"), "ab_proj.weight"),
)


# ------------------------------------------------------------------------------------------------------- the experts


TYPES = {"linear_attention": ("gated_delta_net", "gated_mlp"), "full_attention": ("attention", "gated_mlp")}
EXPERTS = (
    Key("moe_intermediate_size", "moe.hidden", 512),
    Key("shared_expert_intermediate_size", "moe.shared", 512),
)


def _types_of_both(config: Mapping[str, Any]) -> Sequence[str]:
    every, dense = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    if not config.get("num_experts", 512):
        every = config["num_hidden_layers"] + 1
    names = enumerate(_types(config))
    return [name + (DENSE if i in dense or (i + 1) % every else SPARSE) for i, name in names]


def _tell_both(names: Sequence[str]) -> Mapping[str, Any]:
    return {
        "layer_types": names_of_mixers(names),
        "mlp_only_layers": [i for i, sparse in enumerate(experts_of(names)) if not sparse],
        "decoder_sparse_step": 1,
    }


def _experts(layer: Any) -> list[Row]:
    return [
        same("gate.weight", "router.weight"),
        same("shared_expert_gate.weight", "shared_gate.weight"),
        *under("shared_expert.", "shared_expert.", MLP),
        *expert_rows(layer),
    ]


QWEN3_NEXT = Architecture(
    name="qwen3_next",
    model="Qwen3NextForCausalLM",
    settings=Settings(
        (
            *KEYS,
            Key("intermediate_size", "gated_mlp.hidden", 5632),
            Key("num_key_value_heads", "attention.kv_heads", 2),
            Key("num_experts", "moe.experts", 512),
            Key("num_experts_per_tok", "moe.top_k", 10),
            *EXPERTS,
            Key("norm_topk_prob", "moe.normalize", True),
        ),
        **blocks(with_experts(TYPES), _types_of_both, _tell_both),
        ignored=(
            "decoder_sparse_step", "full_attention_interval", "layer_types", "mlp_only_layers", "num_hidden_layers",
            "output_router_logits", "router_aux_loss_coef",
        ),
        fixed={**FIXED, "moe.shared_gate": True},
    ),
    rows=ROWS,
    block=BLOCK,
    layers={
        "attention": ("model.layers.{i}.self_attn.", _attention),
        "gated_delta_net": ("model.layers.{i}.linear_attn.", _delta_of_groups),
        "gated_mlp": ("model.layers.{i}.mlp.", MLP),
        "moe": ("model.layers.{i}.mlp.", _experts),
    },
    skipped=(r".*rotary_emb\.inv_freq", r"mtp\..*"),
)  # fmt: skip
QWEN3_5 = Architecture(
    name="qwen3_5_text",
    model="Qwen3_5ForCausalLM",
    settings=Settings(
        (
            *KEYS,
            Key("intermediate_size", "gated_mlp.hidden", 12_288),
            Key("num_key_value_heads", "attention.kv_heads", 4),
            Same("attn_output_gate", True, written=False),
        ),
        **blocks(TYPES, _types),
        ignored=(
            "full_attention_interval", "layer_types", "mamba_ssm_dtype", "mtp_num_hidden_layers",
            "mtp_use_dedicated_embeddings",
        ),
        fixed=FIXED,
    ),
    rows=ROWS,
    block=BLOCK,
    layers={
        "attention": ("model.layers.{i}.self_attn.", _attention),
        "gated_delta_net": ("model.layers.{i}.linear_attn.", DELTA_IN_PARTS),
        "gated_mlp": ("model.layers.{i}.mlp.", MLP),
    },
    skipped=(r".*rotary_emb\.inv_freq", r"mtp\..*"),
)  # fmt: skip
QWEN3_5_MOE = replace(
    QWEN3_5,
    name="qwen3_5_moe_text",
    model="Qwen3_5MoeForCausalLM",
    settings=Settings(
        (
            *KEYS,
            Key("num_key_value_heads", "attention.kv_heads", 2),
            Key("num_experts", "moe.experts", 256),
            Key("num_experts_per_tok", "moe.top_k", 8),
            *EXPERTS,
            Same("attn_output_gate", True, written=False),
            Same("norm_topk_prob", True, written=False),
            Same("decoder_sparse_step", 1, written=False),
            Same("mlp_only_layers", [], written=False),
        ),
        **blocks({name: (mixer, "moe") for name, (mixer, _) in TYPES.items()}, _types),
        ignored=(*QWEN3_5.settings.ignored, "intermediate_size", "output_router_logits", "router_aux_loss_coef"),
        fixed={**FIXED, "moe.shared_gate": True},
    ),
    layers={**QWEN3_5.layers, "moe": ("model.layers.{i}.mlp.", _experts)},
)

# ------------------------------------------------------------------------------- the text model of a larger checkpoint


def _inside(name: str) -> str:
    return name.replace("model.", "model.language_model.", 1) if name.startswith("model.") else name


def _rows_inside(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, theirs=tuple(map(_inside, row.theirs))) for row in rows]


def _text(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**config, **(config.get("text_config") or {})}


def _with_vision(text: Architecture, name: str) -> Format:
    """What reads text of a checkpoint that sees images as well: it is loaded alone, and saved as `text`."""
    inner = replace(
        text,
        rows=_rows_inside(ROWS),
        block=_rows_inside(BLOCK),
        layers={kind: (_inside(prefix), rows) for kind, (prefix, rows) in text.layers.items()},
        skipped=(*text.skipped, r"model\.visual\..*"),
    )
    return Format(
        name,
        lambda config: config.get("model_type") == name,
        lambda folder, config: inner.load(folder, _text(config)),
        inspect=lambda folder, config: inner.inspect(folder, _text(config)),
        unknown=lambda config: inner.settings.not_understood(config.get("text_config") or {}),
    )


QWEN3_5_WITH_VISION = _with_vision(QWEN3_5, "qwen3_5")
QWEN3_5_MOE_WITH_VISION = _with_vision(QWEN3_5_MOE, "qwen3_5_moe")
"""As the checkpoints are released."""
