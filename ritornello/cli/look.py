"""``ritornello look``: what a model's layers do while it reads a text."""

from __future__ import annotations

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ritornello.cli.outputs import demand_folder
from ritornello.cli.reading import lead, load_model
from ritornello.errors import CheckpointError, InputError, nearest
from ritornello.models import LanguageModel

if TYPE_CHECKING:
    from ritornello.lab.look import Look, View

NAME = "look"
HELP = "Show what a model's layers do with a text: attention, memory, eigenvalues, gates, surprise."
EXAMPLES = """\
  ritornello look run --text 'the cat sat on the mat; the cat'
  ritornello look run --file poem.txt --what norms,surprise --out poem
  ritornello look state-spaces/mamba-130m-hf --text 'Paris is in France.' --layer 3
"""
HEADINGS = "layer", "kind", "state bytes", "horizon", "largest |eigenvalue|"


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("model", metavar="MODEL", help="the folder of a run or of a saved model, or an id on the hub")
    options.add_argument("--text", metavar="TEXT", help="what it reads; any bytes")
    options.add_argument("--file", type=Path, metavar="FILE", help="or a file that holds it")
    options.add_argument("--out", type=Path, default=Path("looked"), metavar="DIR", help="the folder (looked)")
    options.add_argument("--layer", type=int, metavar="N", help="only this one, in order of running from 0")
    options.add_argument(
        "--what", default="all", metavar="A,B", help="attention, norms, eigenvalues, gates, surprise, or all (all)"
    )


def run(arguments: argparse.Namespace) -> None:
    from ritornello.lab.bench.plot import require_matplotlib
    from ritornello.lab.look import WHAT, draw, look

    require_matplotlib("`ritornello look`")
    what = WHAT if arguments.what == "all" else tuple(arguments.what.split(","))
    for name in what:
        if name not in WHAT:
            raise InputError(f"`--what` holds {name!r}. {nearest(name, WHAT)}")
    demand_folder(arguments.out, "--out")
    text = _text(arguments)
    model = load_model(arguments.model)
    ids = _ids(model, text, arguments.model)
    found = look(model, ids, arguments.layer, pieces=_pieces(model, ids))
    _refuse_nothing(found, [name for name in what if name != "surprise"])
    written = _write(found, arguments.out, lambda: draw(found, arguments.out, what))
    _tell_layers(found)
    if "surprise" in what:
        _tell_surprise(found)
    for path in written:
        print(f"written: {path}")


def _text(arguments: argparse.Namespace) -> bytes:
    if (arguments.text is None) == (arguments.file is None):
        raise InputError("Give what the model reads: either --text TEXT or --file FILE.")
    return os.fsencode(arguments.text) if arguments.file is None else arguments.file.read_bytes()


def _ids(model: LanguageModel, text: bytes, name: str) -> torch.Tensor:
    """(1, T), with what leads a text."""
    if model.tokens is None:
        raise InputError(f"{name!r} has no tokenizer, so it reads no text. Use ritornello.lab.look.look with ids.")
    return torch.tensor([lead(model) + model.tokens.encode(text)], dtype=torch.long)


def _pieces(model: LanguageModel, ids: torch.Tensor) -> list[str]:
    """The text of each token; empty where a character is not whole yet."""
    assert model.tokens is not None
    decoder, size = model.tokens.decoder(), model.tokens.vocab_size
    return ["\0" if i >= size else decoder.add(i) for i in ids[0].tolist()]


def _refuse_nothing(found: Look, what: list[str]) -> None:
    """A view that was asked for, and that none of the layers has: a sentence for the first of them."""
    for name in what:
        reasons = [view.missing.get(name) for view in found.layers]
        if len(what) < 4 and all(reasons):
            view = found.layers[0]
            raise InputError(f"Layer {view.index} ({view.kind}) has no view {name!r}: {reasons[0]}. Leave it out.")


def _write(found: Look, out: Path, draw) -> list[Path]:
    from safetensors.torch import save_file

    try:
        out.mkdir(parents=True, exist_ok=True)
        arrays = out / "arrays.safetensors"
        save_file(found.arrays(), arrays)
        return [*draw(), arrays]
    except OSError as error:
        raise CheckpointError(f"Nothing could be written to {str(out)!r}: {error}. Give another --out.") from None


def _tell_layers(found: Look) -> None:
    rows = [_row(view) for view in found.layers]
    if not sys.stdout.isatty():  # for grep and cut
        print(*("\t".join(row) for row in [HEADINGS, *rows]), sep="\n")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, caption="horizon in tokens, of each head: where influence or weight has fallen to 1/e")
    for name in HEADINGS:
        table.add_column(name, justify="left" if name == "kind" else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def _row(view: View) -> tuple[str, ...]:
    if view.horizon is None:
        horizon = "–"
    else:
        beyond = f"> {view.attention.shape[-1] - 1}" if view.attention is not None else "∞"
        told = [beyond if math.isinf(h) else f"{h:.0f}" for h in view.horizon.tolist()]
        horizon = told[0] if len(set(told)) == 1 else " ".join(told[:8]) + (" …" if len(told) > 8 else "")
    radius = "–" if view.radius is None else f"{view.radius:.4f}"
    return str(view.index), view.kind, f"{view.state_bytes:,}", horizon, radius


def _tell_surprise(found: Look) -> None:
    bits = found.surprise[~found.surprise.isnan()]
    print(f"surprise: {bits.mean():.2f} bits a token, at most {bits.max():.2f}")
    if not sys.stdout.isatty():
        return
    from rich.console import Console
    from rich.text import Text

    from ritornello.lab.look.draw import heat
    from ritornello.lab.look.read import marks, read_off

    coloured = Text()
    for piece, b in read_off(found):
        coloured.append(marks([piece])[0], style="" if math.isnan(b) else f"#222222 on {heat(b)}")
        coloured.append("\n" * piece.count("\n"))
    Console().print(coloured, soft_wrap=True)
