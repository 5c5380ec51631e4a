"""HGRN2 as flash-linear-attention keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from ritornello.hub.fla import architecture
from ritornello.hub.settings import Rule, Same
from ritornello.hub.table import Row, joined, same
from ritornello.typing import Tensor

__all__ = ["HGRN2"]


def _heads(config: Mapping[str, Any]) -> int:
    size = config.get("expand_ratio", None if config.get("num_heads") else 128)
    return config["hidden_size"] // size if size else config["num_heads"]


def _mixer(layer: Any) -> list[Row]:
    keys, values = layer.size.keys, layer.size.values
    return [
        joined([f"{part}_proj.weight" for part in "qfi"], "qfv_proj.weight", (keys, keys, values)),
        same("g_norm.weight", "norm.weight"),
        same("o_proj.weight", "out_proj.weight"),
    ]


def _bounds(model: Any) -> Row:
    """Theirs are running sums of a softmax over the layers, ours go from layer to layer.

    With their logits r_i: γ_i = p_1 + … + p_i, p = softmax(r), and σ(bound_i) is the share of p_i in what γ_{i−1}
    leaves, bound_i = r_i − log(e^{r_0} + Σ_{j>i} e^{r_j}). A constant in all r is lost: r_0 is written as 0.
    """
    depth, width = len(model.backbone.blocks), model.config.width
    names = tuple(f"backbone.blocks.{i}.mixer.bound.logit" for i in range(1, depth))

    def read(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        r = tensors[0]
        return [r[i] - torch.cat([r[:1], r[i + 1 :]]).logsumexp(0) for i in range(1, depth)]

    def write(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        first = torch.zeros(width, device=tensors[0].device) if tensors else torch.zeros(width)
        rows = [first]  # r_0, then the last, and so on down
        for bound in reversed(tensors):
            rows.append(bound + torch.stack(rows).logsumexp(0))
        return (torch.stack([first, *reversed(rows[1:])]).to(tensors[0].dtype if tensors else first.dtype),)

    return Row(("model.lower_bounds",), names, read, write)


_PLAIN = architecture(
    "hgrn2",
    "HGRN2",
    "hgrn2",
    (
        Rule("hgrn2.heads", _heads, "num_heads", lambda ours: ours["hgrn2.heads"]),
        Rule(
            "hgrn2.key_size",
            lambda config: config["hidden_size"] // _heads(config),
            "expand_ratio",
            lambda ours: ours["hgrn2.key_size"],
        ),
        # Theirs divides o by √K before the norm, whose ε is 10⁻⁵ whatever the others' is.
        Rule("hgrn2.norm_eps", lambda config: 1e-5 * (config["hidden_size"] // _heads(config))),
        Rule(
            "hgrn2.lower_bound",
            lambda config: None if config.get("use_lower_bound", True) else 0.0,
            "use_lower_bound",
            lambda ours: ours["hgrn2.lower_bound"] is None,
        ),
        Same("use_short_conv", False),
    ),
    _mixer,
    ignored=("conv_size",),
    norm_eps=False,
)


def _rows(model: Any) -> list[Row]:
    bounded = any(block.mixer.bound.fixed is None for block in model.backbone.blocks)
    return [*_PLAIN.rows, *([_bounds(model)] if bounded else [])]  # type: ignore[misc]


HGRN2 = replace(_PLAIN, rows=_rows)
