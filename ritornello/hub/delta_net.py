"""DeltaNet and Gated DeltaNet as flash-linear-attention keeps them."""

from __future__ import annotations

from typing import Any

from ritornello.hub.fla import architecture, convolutions, per_head, value_size
from ritornello.hub.settings import Key, Same
from ritornello.hub.table import Row, joined, same

__all__ = ["DELTA_NET", "GATED_DELTANET", "gated_rows", "qkv_rows"]


def qkv_rows(layer: Any, pooled: bool = False) -> list[Row]:
    """Of the projections and convolutions; `pooled` where files may cut these elsewhere."""
    sizes = (layer.size.keys, layer.size.keys, layer.size.values)
    projections = joined([f"{part}_proj.weight" for part in "qkv"], "qkv_proj.weight", sizes)
    return [projections, convolutions(sizes, pooled), same("o_proj.weight", "out_proj.weight")]


def _rows(layer: Any) -> list[Row]:
    return [
        *qkv_rows(layer),
        same("b_proj.weight", "beta_proj.weight"),
        same("o_norm.weight", "norm.weight", older="norm.weight"),
    ]


def gated_rows(layer: Any, pooled: bool = False) -> list[Row]:
    """Of the gated layer."""
    return [
        *qkv_rows(layer, pooled),
        joined(("a_proj.weight", "b_proj.weight"), "ab_proj.weight"),
        same("A_log", "decay.A_log"),
        same("dt_bias", "decay.dt_bias"),
        same("g_proj.weight", "gate_proj.weight"),
        same("o_norm.weight", "norm.norm.weight"),
    ]


DELTA_NET = architecture(
    "delta_net",
    "DeltaNet",
    "delta_net",
    (
        Key("num_heads", "delta_net.heads", 16),
        per_head("delta_net.key_size", "expand_k", 1.0),
        per_head("delta_net.value_size", "expand_v", 1.0),
        Key("conv_size", "delta_net.conv_width", 4),
        Key("allow_neg_eigval", "delta_net.negative_eigenvalues", False),
        Same("use_short_conv", True),
        Same("use_gate", False),
        Same("use_beta", True),
        Same("use_output_norm", True),
        Same("qk_norm", "l2"),
        Same("qk_activation", "silu"),
    ),
    _rows,
)
GATED_DELTANET = architecture(
    "gated_deltanet",
    "GatedDeltaNet",
    "gated_delta_net",
    (
        Key("num_heads", "gated_delta_net.heads", 6),
        Key("num_v_heads", "gated_delta_net.value_heads", None),
        Key("head_dim", "gated_delta_net.key_size", 256),
        value_size("gated_delta_net", 2.0),
        Key("conv_size", "gated_delta_net.conv_width", 4),
        Key("allow_neg_eigval", "gated_delta_net.negative_eigenvalues", False),
        Same("use_short_conv", True),
        Same("use_gate", True),
    ),
    gated_rows,
)
