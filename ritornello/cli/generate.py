"""``ritornello generate``: text from a model, as it comes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch

from ritornello.cli.outputs import demand_file
from ritornello.cli.reading import lead, load_model
from ritornello.errors import InputError
from ritornello.models import LanguageModel, load_stream
from ritornello.state import State
from ritornello.train.interrupt import interruptible

NAME = "generate"
HELP = "Stream text from a trained model."
EXAMPLES = """\
  ritornello generate run --prompt 'import ' --tokens 300 --temperature 0.8
  ritornello generate run --prompt 'import ' --state-out a.safetensors       # keep what was read
  ritornello generate run --state-in a.safetensors --tokens 300              # and go on from there
"""


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument(
        "model", metavar="DIR", help="the folder of a run or of a saved model, or a model's id on the hub"
    )
    options.add_argument("--prompt", default="", metavar="TEXT", help="what the text begins with; any bytes")
    options.add_argument("--tokens", type=int, default=256, metavar="N", help="how many to write (256)")
    options.add_argument("--temperature", type=float, default=0.8, metavar="X", help="0: the likeliest (0.8)")
    options.add_argument("--top-k", type=int, metavar="N", help="choose among the N likeliest")
    options.add_argument("--top-p", type=float, metavar="P", help="choose among the likeliest that hold probability P")
    options.add_argument("--seed", type=int, metavar="N", help="the same seed writes the same text")
    options.add_argument("--state-in", type=Path, metavar="FILE", help="go on from a state; --prompt is added to it")
    options.add_argument("--state-out", type=Path, metavar="FILE", help="save the state at the end")


def run(arguments: argparse.Namespace) -> None:
    if arguments.seed is not None and abs(arguments.seed) >= 2**63:
        raise InputError(f"`--seed` is {arguments.seed}; wanted a whole number that 64 bits hold.")
    if arguments.state_out is not None:
        demand_file(arguments.state_out, "--state-out")
    model = load_model(arguments.model)
    generator = torch.Generator()
    generator.manual_seed(arguments.seed) if arguments.seed is not None else generator.seed()
    ids, state = _beginning(model, arguments)
    stream = model.stream_text(
        ids, state, max_new_tokens=arguments.tokens, temperature=arguments.temperature, top_k=arguments.top_k,
        top_p=arguments.top_p, generator=generator,
    )  # fmt: skip
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal that knows no UTF-8
    try:
        with interruptible() as interrupted:  # a step that Ctrl-C cut short would leave no state to save
            for text in stream:
                sys.stdout.write(text)
                sys.stdout.flush()
                if interrupted.is_set():
                    raise KeyboardInterrupt
        if sys.stdout.isatty():
            print()
    finally:  # also when Ctrl-C or a closed pipe ends it
        if arguments.state_out is not None:
            stream.save(arguments.state_out)


def _beginning(model: LanguageModel, arguments: argparse.Namespace) -> tuple[torch.Tensor, State | None]:
    """The ids to read first, and the state before them: what a stream left unread or a boundary, then the prompt."""
    if model.tokens is None:
        raise InputError(f"{arguments.model!r} has no tokenizer, so its ids are no text. Use model.stream in Python.")
    prompt = model.tokens.encode(os.fsencode(arguments.prompt))  # the bytes that were typed, be they UTF-8 or not
    if arguments.state_in is None:
        return torch.tensor([lead(model) + prompt], dtype=torch.long), None
    unread, state = load_stream(arguments.state_in)
    return torch.tensor([unread[0].tolist() + prompt], dtype=torch.long), state
