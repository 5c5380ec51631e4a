"""Settings of rotary positions that several formats share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from math import inf, log
from typing import Any

from ritornello.hub.settings import NOTHING, Rule, look_up
from ritornello.layers.parts.rotary import Yarn

__all__ = ["SCALING", "base_of", "partial_rotary", "rope_base"]

NAME = "rope_parameters.partial_rotary_factor"


def base_of(config: Mapping[str, Any], default: float) -> Any:
    """The base of the rotation: beside what else is told of it, or at the top as before transformers 5."""
    told = _told(config)
    base = told["rope_theta"] if "rope_theta" in told else config.get("rope_theta", default)
    if base is not None and (isinstance(base, bool) or not isinstance(base, (int, float)) or not 0 < base < inf):
        raise ValueError(f"rope_theta = {base!r}; wanted a positive number")
    return base


def _told(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """``rope_parameters``, or ``rope_scaling`` as it was before transformers 5."""
    told = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(told, Mapping):
        raise ValueError(f"rope_parameters = {told!r}; wanted an object")
    return told


def rope_base(default: float) -> Rule:
    """The base of the rotation; `default` where a config says none."""

    def read(config: Mapping[str, Any]) -> float:
        return base_of(config, default) or default

    name = "rope_parameters.rope_theta"
    return Rule("attention.rope_base", read, name, lambda ours: ours["attention.rope_base"], uses=("rope_theta",))


def partial_rotary(default: float, head_dim: int | None = None) -> Rule:
    """The share of a head's channels that are turned; `default` where a config says none, of heads of `head_dim`
    channels where it says none of those."""

    def read(config: Mapping[str, Any]) -> int:
        share = look_up(config, NAME) or config.get("partial_rotary_factor") or default
        head = config.get("head_dim") or head_dim or config["hidden_size"] // config["num_attention_heads"]
        return int(head * share)

    return Rule(
        "attention.rope_size",
        read,
        NAME,
        lambda ours: ours["attention.rope_size"] / ours["attention.key_size"],
        uses=("partial_rotary_factor", "head_dim", "hidden_size", "num_attention_heads"),
    )


LLAMA3 = {
    "factor": "factor",
    "low_freq_factor": "low",
    "high_freq_factor": "high",
    "original_max_position_embeddings": "length",
}
YARN = {
    "factor": "factor",
    "original_max_position_embeddings": "length",
    "beta_fast": "fast",
    "beta_slow": "slow",
    "attention_factor": "scale",
    "truncate": "whole",
}
TYPES = {"default": {}, "linear": {"factor": "factor"}, "llama3": LLAMA3, "yarn": YARN}
"""rope_type → their names of its parts and ours."""
SETTING = "attention.rope_scaling"


def _scaling(config: Mapping[str, Any]) -> dict[str, Any] | None:
    told = _told(config)
    kind = told.get("rope_type") or told.get("type") or "default"
    if kind not in TYPES:
        raise ValueError(f"rope_type = {kind!r}; there are {', '.join(TYPES)}")
    if kind == "yarn":
        return _yarn(told, config)
    return {ours: told[name] for name, ours in TYPES[kind].items()} or None


def _yarn(told: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """With what a config leaves to its reader, and without what is `Yarn`'s default."""
    length = told.get("original_max_position_embeddings") or config["max_position_embeddings"]
    factor = told.get("factor") or config["max_position_embeddings"] / length
    found = {ours: told.get(name) for name, ours in YARN.items()} | {"factor": factor, "length": length}
    above, below = told.get("mscale"), told.get("mscale_all_dim")
    if found["scale"] is None and above and below:
        grown = log(max(factor, 1.0)) / 10
        found["scale"] = (above * grown + 1) / (below * grown + 1)
    defaults = {f.name: f.default for f in fields(Yarn)}
    return {name: value for name, value in found.items() if value is not None and value != defaults[name]}


def _type(ours: Mapping[str, Any]) -> str:
    scaling = set(ours[SETTING] or ())
    if {"factor", "length"} <= scaling != set(LLAMA3.values()):
        return "yarn"
    return next(kind for kind, names in TYPES.items() if set(names.values()) == scaling)


def _part(name: str) -> Rule:
    def write(ours: Mapping[str, Any]) -> Any:
        return (ours[SETTING] or {}).get(TYPES[_type(ours)].get(name), NOTHING)

    return Rule(SETTING, _scaling, f"rope_parameters.{name}", write)


SCALING = (
    Rule(SETTING, _scaling, "rope_parameters.rope_type", _type, uses=("rope_scaling",)),
    *map(_part, {**LLAMA3, **YARN}),
)
"""How frequencies are stretched for long texts."""
