"""RecurrentGemma, Griffin as Google trained it, as transformers keeps it."""

from __future__ import annotations

from typing import Any

import torch

from ritornello.hub.architecture import Architecture
from ritornello.hub.llama import ATTENTION, MLP, ROPE
from ritornello.hub.rotary import partial_rotary
from ritornello.hub.settings import Key, Rule, Same, Settings, blocks
from ritornello.hub.table import Row, joined, same, squeezed

__all__ = ["RECURRENT_GEMMA"]


def _half(size: int) -> int:
    if size % 2:
        raise ValueError("gate and up halve it")
    return size // 2


KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("intermediate_size", "gated_mlp.hidden", read=_half, write=lambda hidden: 2 * hidden),
    Key("num_attention_heads", ("attention.heads", "rg_lru.heads")),
    Key("num_key_value_heads", "attention.kv_heads", None),
    Key("attention_window_size", "attention.window", 2048),
    Key("attention_bias", "attention.bias", False),
    Rule("rg_lru.state_size", lambda c: c.get("lru_width") or c["hidden_size"], "lru_width", uses=("hidden_size",),
         write=lambda ours: ours["rg_lru.state_size"]),
    Key("conv1d_width", "rg_lru.conv_width", 4),
    Key("logits_soft_cap", "logits_soft_cap", 30.0),
    Key("rms_norm_eps", "norm_eps", 1e-6),
    Key("tie_word_embeddings", "tied_embeddings", True),
    # The authors' code keeps √width in bfloat16.
    Rule("embedding_scale", lambda c: torch.tensor(c["hidden_size"] ** 0.5, dtype=torch.bfloat16).item()),
    *ROPE,
    partial_rotary(0.5),
    Same("hidden_activation", "gelu_pytorch_tanh"),
    Same("embeddings_scale_by_sqrt_dim", True, written=False),
)  # fmt: skip


def _recurrent(layer: Any) -> list[Row]:
    heads = layer.cell.weight.shape[1]
    gates = ("rg_lru.recurrent_gate_", "rg_lru.input_gate_")
    return [
        *(joined((f"linear_x.{part}", f"linear_y.{part}"), f"in_proj.{part}") for part in ("weight", "bias")),
        *(same(f"linear_out.{part}", f"out_proj.{part}") for part in ("weight", "bias")),
        squeezed("conv_1d.weight", "conv.weight"),
        same("conv_1d.bias", "conv.bias"),
        same("rg_lru.recurrent_param", "cell.Lambda"),
        Row(
            tuple(gate + "weight" for gate in gates),
            ("cell.weight",),
            lambda t: (torch.stack([w.mT for w in t]),),  # theirs [head, in, out], ours [gate, head, out, in]
            lambda t: [w.mT for w in t[0]],
        ),
        Row(
            tuple(gate + "bias" for gate in gates),
            ("cell.bias",),
            lambda t: (torch.stack([b.flatten() for b in t]),),
            lambda t: list(t[0].unflatten(1, (heads, -1))),
        ),
    ]


RECURRENT_GEMMA = Architecture(
    name="recurrent_gemma",
    model="RecurrentGemmaForCausalLM",
    settings=Settings(
        KEYS,
        **blocks(
            {"recurrent": ("rg_lru", "gated_mlp"), "attention": ("attention", "gated_mlp")},
            lambda config: config.get("block_types") or ("recurrent", "recurrent", "attention"),
            lambda names: {"block_types": list(names)},
        ),
        older={"_block_types": "block_types"},
        ignored=("final_w_init_variance_scale", "head_dim", "w_init_variance_scale"),
        fixed={
            "norm": "zero_centred_rms_norm",
            "attention.out_bias": True,
            "gated_mlp.bias": True,
            "gated_mlp.activation": "gelu_tanh",
        },
    ),
    rows=(
        same("model.embed_tokens.weight", "embedding.weight"),
        same("model.final_norm.weight", "backbone.final_norm.weight"),
        same("lm_head.weight", "head.weight"),
    ),
    block=(
        same("model.layers.{i}.temporal_pre_norm.weight", "backbone.blocks.{i}.mixer_norm.weight"),
        same("model.layers.{i}.channel_pre_norm.weight", "backbone.blocks.{i}.ffn_norm.weight"),
    ),
    layers={
        "rg_lru": ("model.layers.{i}.temporal_block.", _recurrent),
        "attention": ("model.layers.{i}.temporal_block.", ATTENTION),
        "gated_mlp": ("model.layers.{i}.mlp_block.", MLP),
    },
)
