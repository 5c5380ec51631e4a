"""``ritornello info``: what a checkpoint is, without loading it."""

from __future__ import annotations

import argparse
from itertools import groupby

from ritornello import hub
from ritornello.cli.reading import place
from ritornello.hub import Inspected
from ritornello.layers import Layer
from ritornello.models.backbone import describe
from ritornello.state import nbytes

NAME = "info"
HELP = "Tell what a checkpoint is from its config and the headers of its files, without reading the weights."
EXAMPLES = """\
  ritornello info run
  ritornello info state-spaces/mamba-130m-hf
"""


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "path", metavar="PATH", help="the folder of a run or of a saved model, or a model's id on the hub"
    )


def run(arguments: argparse.Namespace) -> None:
    found = hub.inspect(place(arguments.path))
    for name, value in _told(found):
        print(f"{name:<15}{value}")


def _told(found: Inspected) -> list[tuple[str, str]]:
    model, config = found.model, found.model.config
    grows = {layer.traits.growth for layer in model.modules() if isinstance(layer, Layer)} - {"constant"}
    more = f", before anything is read; it grows ({', '.join(sorted(grows))})" if grows else ""
    return [
        ("path", str(found.folder)),
        ("architecture", found.format),
        ("layers", f"{config.depth}: {_run_lengths([describe(e) for e in config.entries()])}"),
        ("feed-forwards", _run_lengths(["none" if f is None else describe(f) for f in config.feed_forwards()])),
        ("width", f"{config.width:,}"),
        ("vocabulary", f"{config.vocab_size:,}"),
        ("parameters", f"{model.parameter_count:,}"),
        ("state", f"{nbytes(model.initial_state(1)):,} bytes a sequence{more}"),
        ("not understood", ", ".join(found.unknown) or "nothing"),
    ]


def _run_lengths(names: list[str]) -> str:
    """``a × 3, b, a × 3``"""
    runs = [(name, len(list(same))) for name, same in groupby(names)]
    return ", ".join(name if n == 1 else f"{name} × {n}" for name, n in runs)
