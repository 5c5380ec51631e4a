"""Kimi Delta Attention as flash-linear-attention keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ritornello.hub.delta_net import qkv_rows
from ritornello.hub.fla import architecture, value_size
from ritornello.hub.settings import Key, Rule, Same
from ritornello.hub.table import Row, same

__all__ = ["KDA"]


def _rows(layer: Any) -> list[Row]:
    return [
        *qkv_rows(layer),
        same("f_proj.0.weight", "decay_proj.down.weight"),
        same("f_proj.1.weight", "decay_proj.up.weight"),
        same("b_proj.weight", "beta_proj.weight"),
        same("A_log", "decay.A_log"),
        same("dt_bias", "decay.dt_bias"),
        same("g_proj.0.weight", "gate_proj.down.weight"),
        same("g_proj.1.weight", "gate_proj.up.weight"),
        same("g_proj.1.bias", "gate_proj.up.bias"),
        same("o_norm.weight", "norm.norm.weight"),
    ]


def _bound(config: Mapping[str, Any]) -> float | None:
    """The bound counts with the safe gate only."""
    return config["lower_bound"] if config.get("safe_gate") else None


KDA = architecture(
    "kda",
    "KDA",
    "kda",
    (
        Key("num_heads", "kda.heads", 16),
        Key("num_v_heads", "kda.value_heads", None),
        Key("head_dim", "kda.key_size", 128),
        value_size("kda", 1.0),
        Key("conv_size", "kda.conv_width", 4),
        Key("allow_neg_eigval", "kda.negative_eigenvalues", False),
        Rule("kda.decay_bound", _bound, "lower_bound", lambda ours: ours["kda.decay_bound"]),
        Rule("kda.decay_bound", _bound, "safe_gate", lambda ours: ours["kda.decay_bound"] is not None),
        Same("use_short_conv", True),
    ),
    _rows,
)
