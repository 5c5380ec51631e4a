"""Ids of a vocabulary, and what is none."""

from __future__ import annotations

from typing import Any

import torch

from ritornello.errors import InputError
from ritornello.typing import Tensor

__all__ = ["IDS", "demand_ids", "unknown"]

IDS = (torch.int64, torch.int32)


def demand_ids(name: str, ids: Any, weight: Tensor) -> None:
    """Refuse what are no ids (B, T) for an embedding with this `weight`."""
    if not isinstance(ids, torch.Tensor) or ids.dim() != 2 or ids.dtype not in IDS:
        got = f"{tuple(ids.shape)} {ids.dtype}" if isinstance(ids, torch.Tensor) else f"a {type(ids).__name__}"
        raise InputError(f"`{name}` is {got}; wanted (B, T) integers in a tensor of int64 or int32.")
    if ids.device != weight.device and weight.device.type != "meta":
        raise InputError(
            f"`{name}` is on {ids.device}, and the model on {weight.device}. Move one of them: "
            f"{name}.to({str(weight.device)!r}), or model.to({str(ids.device)!r})."
        )


def unknown(name: str, ids: Tensor, size: int) -> InputError:
    """The error for ids beyond a vocabulary of `size`."""
    return InputError(
        f"`{name}` range from {int(ids.min())} to {int(ids.max())}; this model's vocabulary has {size}, from 0 to "
        f"{size - 1}. Use the tokens it was made with."
    )
