"""Tags on parameters: what the optimiser and mixed precision must know of them.

A module lists those of its parameters, or of its children's:

    tags = {"A_log": (NO_WEIGHT_DECAY, KEEP_FLOAT32), "cell.Lambda": (NO_WEIGHT_DECAY,)}
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

__all__ = ["KEEP_FLOAT32", "NO_WEIGHT_DECAY", "tagged", "working_weight"]

NO_WEIGHT_DECAY = "no_weight_decay"
KEEP_FLOAT32 = "keep_float32"


def tagged(module: nn.Module, tag: str) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of `module` and its children that carry `tag`, with their full names."""
    for path, part in module.named_modules():
        if listed := getattr(part, "tags", {}):
            parameters = dict(part.named_parameters())
            for name in (n for n, tags in listed.items() if tag in tags and n in parameters):
                yield (f"{path}.{name}" if path else name), parameters[name]


def working_weight(module: nn.Module) -> nn.Parameter | None:
    """The first floating parameter without the tag KEEP_FLOAT32: its dtype is what the module computes in. None where
    there is no such parameter."""
    wide = vars(module).get("_wide_names")
    if wide is None:  # looked for once: it takes as long as a tenth of a small layer's step
        wide = module._wide_names = frozenset(name for name, _ in tagged(module, KEEP_FLOAT32))  # type: ignore[assignment]
    return next((p for name, p in module.named_parameters() if name not in wide and p.is_floating_point()), None)
