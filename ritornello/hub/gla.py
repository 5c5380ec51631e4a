"""Gated linear attention as flash-linear-attention keeps it."""

from __future__ import annotations

from typing import Any

from ritornello.hub.fla import architecture, per_head
from ritornello.hub.settings import Key, Same
from ritornello.hub.table import Row, joined, same

__all__ = ["GLA"]


def _rows(layer: Any) -> list[Row]:
    keys, values = layer.size.keys, layer.size.values
    return [
        joined([f"{part}_proj.weight" for part in "qkv"], "qkv_proj.weight", (keys, keys, values)),
        same("gk_proj.0.weight", "decay_proj.0.weight"),
        same("gk_proj.1.weight", "decay_proj.1.weight"),
        same("gk_proj.1.bias", "decay_proj.1.bias"),
        same("g_proj.weight", "gate_proj.weight"),
        same("g_norm_swish_gate.weight", "norm.norm.weight", older="g_norm.weight"),
        same("o_proj.weight", "out_proj.weight"),
    ]


GLA = architecture(
    "gla",
    "GLA",
    "gla",
    (
        Key("num_heads", "gla.heads", 4),
        per_head("gla.key_size", "expand_k", 0.5),
        per_head("gla.value_size", "expand_v", 1.0),
        Same("num_kv_heads", lambda ours: ours["gla.heads"], written=False),
        Same("feature_map", None),
        Same("use_short_conv", False),
        Same("use_output_gate", True),
        Same("clamp_min", None),
    ),
    _rows,
    ignored=("conv_size", "use_gk", "use_gv"),
)
