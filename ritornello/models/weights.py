"""What concerns all weights of a model at once: initialisation, the optimiser's groups, dtypes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ritornello.layers.parts.tags import KEEP_FLOAT32, NO_WEIGHT_DECAY, tagged

__all__ = ["initialise", "parameter_groups", "to_dtype"]

OUTPUT = "out_proj"


def initialise(module: nn.Module, std: float, depth: int) -> None:
    """Draw the weights of every nn.Linear and nn.Embedding from normal(0, std²).

    A projection named ``out_proj`` writes into the residual stream; its std is divided by √(2·depth), so that the
    stream's variance does not grow with the depth (Radford et al. 2019, GPT-2, section 2.3). Biases and all other
    parameters keep what their layer gave them, and so does all of a module with the attribute ``own_init = True``.
    """

    def visit(part: nn.Module, name: str) -> None:
        if getattr(part, "own_init", False):
            return
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, 0.0, std / math.sqrt(2 * depth) if name == OUTPUT else std)
        for child_name, child in part.named_children():
            visit(child, child_name)

    visit(module, "")


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The parameters in two groups for an optimiser: with `weight_decay`, and without.

    Without: what carries the tag ``no_weight_decay``, norms and biases (whatever has one dimension), and embeddings,
    whose rows get no gradient in most steps and would only shrink.
    """
    exempt = {p for _, p in tagged(module, NO_WEIGHT_DECAY)}
    exempt |= {m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for parameter in module.parameters():
        groups[parameter.dim() < 2 or parameter in exempt].append(parameter)
    decays = (weight_decay, 0.0)
    return [{"params": ps, "weight_decay": d} for ps, d in zip(groups, decays, strict=True) if ps]


@torch.no_grad()
def to_dtype(module: nn.Module, dtype: torch.dtype) -> None:
    """Turn the floating parameters and buffers to `dtype`, in place, but for those tagged ``keep_float32``.

    Those stay at float32 or wider: decays that are multiplied over thousands of steps, biases that settle near-ties.
    """
    keep = {p for _, p in tagged(module, KEEP_FLOAT32)}
    wide = torch.promote_types(dtype, torch.float32)
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(wide if parameter in keep else dtype)
    for part in module.modules():
        for name, buffer in part.named_buffers(recurse=False):
            if buffer.is_floating_point():
                kept = KEEP_FLOAT32 in getattr(part, "tags", {}).get(name, ())
                buffer.data = buffer.data.to(wide if kept else dtype)
