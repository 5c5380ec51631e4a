"""Tags on parameters: what the optimiser and mixed precision must know of them.

A module that owns such parameters lists them:

    tags = {"A_log": (NO_WEIGHT_DECAY, KEEP_FLOAT32)}
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["KEEP_FLOAT32", "NO_WEIGHT_DECAY", "tagged"]

NO_WEIGHT_DECAY = "no_weight_decay"
KEEP_FLOAT32 = "keep_float32"


def tagged(module: nn.Module, tag: str) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of `module` and its children that carry `tag`, with their full names."""
    for path, part in module.named_modules():
        for name, tags in getattr(part, "tags", {}).items():
            parameter = getattr(part, name, None)
            if tag in tags and isinstance(parameter, nn.Parameter):
                yield (f"{path}.{name}" if path else name), parameter
