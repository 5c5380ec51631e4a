"""Settings of rotary positions that several formats share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ritornello.hub.settings import NOTHING, Rule, look_up

__all__ = ["SCALING", "partial_rotary"]

NAME = "rope_parameters.partial_rotary_factor"


def partial_rotary(default: float) -> Rule:
    """The share of a head's channels that are turned; `default` where a config says none."""

    def read(config: Mapping[str, Any]) -> int:
        share = look_up(config, NAME) or config.get("partial_rotary_factor") or default
        head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        return int(head * share)

    return Rule(
        "attention.rope_size",
        read,
        NAME,
        lambda ours: ours["attention.rope_size"] / ours["attention.key_size"],
        uses=("partial_rotary_factor", "head_dim", "hidden_size", "num_attention_heads"),
    )


PARTS = {
    "factor": "factor",
    "low_freq_factor": "low",
    "high_freq_factor": "high",
    "original_max_position_embeddings": "length",
}
TYPES = {"default": (), "linear": ("factor",), "llama3": tuple(PARTS)}
SETTING = "attention.rope_scaling"


def _scaling(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of ``rope_parameters``, or of ``rope_scaling`` as it was before transformers 5."""
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = told.get("rope_type") or told.get("type") or "default"
    if kind not in TYPES:
        raise ValueError(f"rope_type = {kind!r}; there are {', '.join(TYPES)}")
    return {PARTS[name]: told[name] for name in TYPES[kind]} or None


def _type(ours: Mapping[str, Any]) -> str:
    scaling = ours[SETTING] or ()
    return next(kind for kind, names in TYPES.items() if {PARTS[name] for name in names} == set(scaling))


def _part(name: str) -> Rule:
    return Rule(
        SETTING,
        _scaling,
        f"rope_parameters.{name}",
        lambda ours: (ours[SETTING] or {}).get(PARTS[name], NOTHING),
    )


SCALING = (
    Rule(SETTING, _scaling, "rope_parameters.rope_type", _type, uses=("rope_scaling",)),
    *map(_part, PARTS),
)
"""How frequencies are stretched for long texts."""
