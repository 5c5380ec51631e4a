"""``ritornello convert``: a checkpoint in another format."""

from __future__ import annotations

import argparse
from pathlib import Path

from ritornello import hub
from ritornello.cli.outputs import demand_folder
from ritornello.cli.reading import place
from ritornello.errors import InputError
from ritornello.hub.base import find

NAME = "convert"
HELP = "Read a checkpoint in any format and write it in another."
EXAMPLES = """\
  ritornello convert state-spaces/mamba2-130m-hf mine --to ritornello
  ritornello convert mine back --to mamba2                   # what transformers reads
"""


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("source", metavar="IN", help="the folder of a run or of a saved model, or a model's id")
    options.add_argument("target", metavar="OUT", type=Path, help="a folder; it is made where there is none")
    options.add_argument("--to", required=True, metavar="FORMAT", help=", ".join(hub.formats(saved=True)))


def run(arguments: argparse.Namespace) -> None:
    demand_folder(arguments.target, "OUT")
    find(arguments.to)  # a slip of the pen is told before gigabytes are read
    source = place(arguments.source)
    same = arguments.target.resolve() in (Path(arguments.source).resolve(), Path(source).resolve())
    if same and Path(source).exists():
        raise InputError(f"IN and OUT are both {arguments.source!r}. Give another folder to write to.")
    model = hub.load(source)
    hub.save(model, arguments.target, format=arguments.to)
    print(f"{arguments.target}: {arguments.to}, {model.parameter_count:,} parameters")
