"""Bamba: Mamba-2 with a layer of attention here and there, every block with a feed-forward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ritornello.hub import mamba2
from ritornello.hub.architecture import Architecture
from ritornello.hub.jamba import HYBRID_BLOCK, HYBRID_ROWS
from ritornello.hub.llama import ATTENTION, MLP, ROPE, key_value_heads
from ritornello.hub.rotary import partial_rotary
from ritornello.hub.settings import Key, Same, Settings, blocks

__all__ = ["BAMBA", "IGNORED", "SHARED"]

SHARED = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("intermediate_size", "gated_mlp.hidden"),
    Key("mlp_bias", "gated_mlp.bias", False),
    Key("num_attention_heads", "attention.heads"),
    key_value_heads(8),
    Key("head_dim", "attention.key_size", None),
    Key("attention_bias", ("attention.bias", "attention.out_bias"), False),
    Key("mamba_n_heads", "mamba2.heads", 128),
    Key("mamba_n_groups", "mamba2.groups", 1),
    Key("mamba_d_state", "mamba2.state_size", 256),
    Key("mamba_d_conv", "mamba2.conv_width", 4),
    Key("mamba_conv_bias", "mamba2.conv_bias", True),
    Key("rms_norm_eps", ("norm_eps", "mamba2.norm_eps"), 1e-5),
    Key("tie_word_embeddings", "tied_embeddings", False),
    *ROPE,
    Same("hidden_act", "silu", also=("swish",)),
    mamba2.STEPS,
)
"""What Bamba and Falcon-H1 say alike."""

IGNORED = ("mamba_chunk_size", "num_logits_to_keep", "use_mamba_kernels", "z_loss_coefficient")


def _read(config: Mapping[str, Any]) -> list[str]:
    attention = config.get("attn_layer_indices") or ()
    return ["attention" if i in attention else "mamba" for i in range(config.get("num_hidden_layers") or 0)]


def _tell(names: Sequence[str]) -> dict[str, Any]:
    return {"attn_layer_indices": [i for i, name in enumerate(names) if name == "attention"]}


def _channels(ours: Mapping[str, Any]) -> int:
    return ours["mamba2.expand"] * ours["width"] // ours["mamba2.heads"]


BAMBA = Architecture(
    name="bamba",
    model="BambaForCausalLM",
    settings=Settings(
        (
            *SHARED,
            Key("mamba_expand", "mamba2.expand", 2),
            Key("mamba_proj_bias", ("mamba2.bias", "mamba2.out_bias"), False),
            Same("mamba_d_head", _channels, also=("auto",)),
            partial_rotary(0.5),
            Same("attn_rotary_emb", lambda ours: ours["attention.rope_size"], written=False),
        ),
        **blocks({"mamba": ("mamba2", "gated_mlp"), "attention": ("attention", "gated_mlp")}, _read, _tell),
        ignored=IGNORED,
    ),
    rows=HYBRID_ROWS,
    block=HYBRID_BLOCK,
    layers={
        "mamba2": ("model.layers.{i}.mamba.", mamba2.MIXER),
        "attention": ("model.layers.{i}.self_attn.", ATTENTION),
        "gated_mlp": ("model.layers.{i}.feed_forward.", MLP),
    },
)
