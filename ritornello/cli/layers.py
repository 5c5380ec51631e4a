"""``ritornello layers``: what there is to build models of."""

from __future__ import annotations

import argparse
import inspect
import sys

from ritornello.errors import InputError
from ritornello.layers import Layer, catalogue, find

NAME = "layers"
HELP = (
    "List the layers: name, family, paper, and how many numbers their state holds. With a name: tell all of that layer."
)
EXAMPLES = """\
  ritornello layers --width 512
  ritornello layers gated_delta_net
  ritornello layers ugrnn --explain --length 4096
"""

WIDEST = 8192
LONGEST, LONGEST_GROWING = 2**18, 2**14
"""Steps in all that are run to be explained: attention's time grows with the square of the length."""
HEADINGS = ("name", "family", "paper", "state numbers", "grows")


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("name", nargs="?", metavar="NAME", help="one layer")
    options.add_argument("--width", type=int, default=256, metavar="N", help="at which the states are counted (256)")
    options.add_argument("--explain", action="store_true", help="which ops run the layer NAME here, by what method")
    options.add_argument("--batch", type=int, default=1, metavar="N", help="of the sequences that are explained (1)")
    options.add_argument(
        "--length", type=int, default=1024, metavar="N", help="of the sequences that are explained (1024)"
    )


def run(arguments: argparse.Namespace) -> None:
    for name in ("width", "batch", "length"):
        if getattr(arguments, name) < 1:
            raise InputError(f"`{name}` is {getattr(arguments, name)}; wanted 1 or more.")
    if arguments.width > WIDEST:
        raise InputError(f"`width` is {arguments.width}; wanted at most {WIDEST}: layers are made to be counted.")
    if arguments.explain:
        if arguments.name is None:
            raise InputError("`--explain` was given without a layer. Name one: ritornello layers lstm --explain.")
        layer = find(arguments.name)
        most = LONGEST_GROWING if layer.traits.growth == "linear" else LONGEST
        if arguments.batch * arguments.length > most:
            raise InputError(
                f"`batch` × `length` is {arguments.batch * arguments.length:,}; wanted at most {most:,} steps for "
                f"{arguments.name!r}, which is run to be explained. Give a shorter --length or a smaller --batch."
            )
        print(*_explained(layer(arguments.width), arguments.batch, arguments.length), sep="\n")
        return
    if arguments.name is not None:
        print(_told(arguments.name, find(arguments.name), arguments.width))
        return
    rows = [_row(name, cls, arguments.width) for name, cls in catalogue().items()]
    if not sys.stdout.isatty():  # for grep and cut
        print(*("\t".join(row) for row in [HEADINGS, *rows]), sep="\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEADINGS, caption=f"one layer of width {arguments.width}, one sequence", box=None)
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _explained(layer: Layer, batch: int, length: int) -> list[str]:
    """What ran when the layer read random numbers, forward: op, method and backend, and what Auto weighed."""
    import torch

    from ritornello.kernels.registry import explain
    from ritornello.method.auto import weighed

    with torch.no_grad(), explain() as log, weighed() as choices:
        layer(torch.randn(batch, length, layer.width))
    lines = [
        f"{layer.kind}, width {layer.width}, {batch} × {length} steps",
        *(f"  {line}" for line in dict.fromkeys(log)),
    ]
    for cell, method, estimates in choices:
        told = ", ".join(f"{name} {seconds * 1e3:.2f} ms" for name, seconds in sorted(estimates.items()))
        lines.append(f"  {cell}: {method} chosen; expected {told}")
    return lines


def _row(name: str, cls: type[Layer], width: int) -> tuple[str, ...]:
    about = cls.traits.about
    return name, about.family, about.paper, _state_numbers(cls, width), cls.traits.growth


def _state_numbers(cls: type[Layer], width: int) -> str:
    """How many numbers the state of one sequence holds before anything was read; what grows is empty then."""
    try:
        state = cls(width).initial_state(1)
    except InputError:
        return f"not at width {width}"
    return f"{sum(t.numel() for t in state.tensors()):,}"


def _told(name: str, cls: type[Layer], width: int) -> str:
    about = cls.traits.about
    lines = [
        f"{name}: {about.title}",
        f"  family   {about.family}",
        f"  paper    {about.paper}",
        f"  state    {_state_numbers(cls, width)} numbers at width {width}; growth: {cls.traits.growth}",
        "",
        inspect.cleandoc(cls.__doc__ or about.equation),
    ]
    return "\n".join(lines)
