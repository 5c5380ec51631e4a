"""RetNet as flash-linear-attention keeps it."""

from __future__ import annotations

from typing import Any

from ritornello.hub.fla import architecture, per_head
from ritornello.hub.settings import Key, Same
from ritornello.hub.table import Row, joined, same

__all__ = ["RETNET"]


def _rows(layer: Any) -> list[Row]:
    keys, values = layer.size.keys, layer.size.values
    return [
        joined([f"{part}_proj.weight" for part in "qkv"], "qkv_proj.weight", (keys, keys, values)),
        same("g_proj.weight", "gate_proj.weight"),
        same("g_norm_swish_gate.weight", "norm.norm.weight", older="g_norm.weight"),
        same("o_proj.weight", "out_proj.weight"),
    ]


RETNET = architecture(
    "retnet",
    "RetNet",
    "retention",
    (
        Key("num_heads", "retention.heads", 8),
        per_head("retention.key_size", "expand_k", 1.0),
        per_head("retention.value_size", "expand_v", 2.0),
        Same("num_kv_heads", lambda ours: ours["retention.heads"], written=False),
        Same("feature_map", None),
        Same("use_short_conv", False),
        Same("use_output_gate", True),
    ),
    _rows,
    ignored=("conv_size",),
    fixed={"retention.norm": "rms"},
    ratio=2,
)
