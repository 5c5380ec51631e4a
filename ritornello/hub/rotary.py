"""Settings of rotary positions that several formats share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ritornello.hub.settings import Rule, look_up

__all__ = ["partial_rotary"]

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
