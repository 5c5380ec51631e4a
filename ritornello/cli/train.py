"""``ritornello train``: a language model from text files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

from ritornello import hub
from ritornello.cli.outputs import demand_folder
from ritornello.errors import InputError
from ritornello.models import ByteTokenizer, FileTokenizer, LanguageModel, ModelConfig
from ritornello.models.pattern import parse_pattern
from ritornello.tasks import text_files
from ritornello.train import Interrupted, Settings, Tokens, Trainer, latest, vocabulary
from ritornello.train.checkpoint import read_training

NAME = "train"
HELP = "Train a language model on text: files, folders, globs, or - for standard input."
EXAMPLES = """\
  ritornello train --data src/ --layer gated_delta_net --steps 2000 --out run
  ritornello train --data '*.txt' --pattern mamba2,mamba2,attention:window=128 --minutes 10 --out run --carry-state
  ritornello train --out run --resume
"""

HELDOUT, HELDOUT_BYTES = 0.05, 1_000_000
"""What is held out unless told: a part of the data, and no more than an evaluation reads in a short time."""

MOST_THREADS = 4096

MODEL = {"width": 256, "depth": 4, "pattern": "gated_delta_net"}
MAY_CHANGE = {"steps", "minutes", "eval_every"}
"""What a resumed run may be given anew; anything else would make it another run."""


def add_options(options: argparse.ArgumentParser) -> None:
    """Nothing has a default here: what was not given comes from the checkpoint, from Settings or from MODEL."""

    def add(name: str, kind: Any = None, help: str = "", **more: Any) -> None:
        options.add_argument(name, **({"type": kind} if kind else {}), help=help, default=argparse.SUPPRESS, **more)

    plain = Settings()
    add("--data", None, "what to read; about 5%% of it is held out, by whole files", nargs="+", metavar="PATH")
    add("--heldout", float, "the part of the data that is held out", metavar="PART")
    add("--tokenizer", Path, "a Hugging Face tokenizer.json; bytes without it", metavar="FILE")
    add("--layer", str, "what every block mixes with; see `ritornello layers`", metavar="NAME")
    add("--pattern", str, "the blocks in turn, with options if any: gla,gla,attention:window=128", metavar="A,A,B")
    add("--width", int, f"of the residual stream ({MODEL['width']})", metavar="N")
    add("--depth", int, f"how many blocks ({MODEL['depth']})", metavar="N")
    add("--steps", int, "updates of the weights (1000)", metavar="N")
    add("--minutes", float, "of training; the learning rate then follows the clock", metavar="X")
    add("--batch", int, f"windows per step and device ({plain.batch})", metavar="N")
    add("--length", int, f"tokens per window ({plain.length})", metavar="N")
    add("--accumulate", int, "batches per update (1)", metavar="N")
    add("--lr", float, f"the peak of the learning rate ({plain.lr})", metavar="X")
    add("--warmup", float, f"the part of the run that warms up ({plain.warmup})", metavar="PART")
    add("--optimizer", str, f"adamw, or muon for the projections ({plain.optimizer})", metavar="NAME")
    add("--weight-decay", float, f"on matrices ({plain.weight_decay})", metavar="X")
    add("--clip", float, f"the largest norm of the gradient ({plain.clip})", metavar="X")
    add("--balance", float, "of the loss that keeps the loads of routers even, of moe and mom (0)", metavar="X")
    add("--carry-state", None, "read on from window to window with the state carried", action="store_true")
    add("--bf16", None, "matrix products in bfloat16", action="store_true")
    add("--seed", int, "of the weights and the order of the data (0)", metavar="N")
    add("--eval-every", int, "steps between evaluations and checkpoints (a tenth of the run)", metavar="N")
    add("--devices", int, "processes that share each step (1)", metavar="N")
    add("--strategy", str, "ddp: whole weights in each; fsdp: shards of them", metavar="NAME")
    add("--threads", int, "CPU threads of each process", metavar="N")
    add("--tensorboard", None, "write TensorBoard's files too", action="store_true")
    options.add_argument("--out", type=Path, default=Path("run"), help="the folder of the run (run)", metavar="DIR")
    options.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")


def run(arguments: argparse.Namespace) -> None:
    given = vars(arguments)
    if (threads := given.get("threads")) is not None:
        if not 1 <= threads <= MOST_THREADS:
            raise InputError(f"`threads` is {threads}; wanted 1 to {MOST_THREADS}.")
        torch.set_num_threads(threads)
    demand_folder(arguments.out, "--out")
    found = _resumed(given) if arguments.resume else None
    settings, record = _settings(given, found, arguments.out)
    if "-" in record["data"] and settings.devices > 1:
        raise InputError("`data` is - with several devices, of which only one has a standard input. Give a file.")
    documents = text_files.read(record["data"])
    if record["heldout"] is None:
        record["heldout"] = min(HELDOUT, HELDOUT_BYTES / sum(len(d.text) for d in documents))
    training, heldout = text_files.split(documents, record["heldout"])
    if found is None:
        tokenizer = FileTokenizer(record["tokenizer"]) if record["tokenizer"] else ByteTokenizer()
        torch.manual_seed(settings.seed)
        model = LanguageModel(_config(given, vocabulary(tokenizer)), tokenizer)
    else:
        model = hub.load(found[0])
        tokenizer = model.tokens or ByteTokenizer()
    data = Tokens.of(training, tokenizer), Tokens.of(heldout, tokenizer)
    trainer = Trainer(model, *data, settings, arguments.out, record=record, tensorboard="tensorboard" in given)
    if found is not None:
        trainer.restore(found[0])
    _train(trainer, model, arguments.out)


def _train(trainer: Trainer, model: LanguageModel, out: Path) -> None:
    first = trainer.fabric.global_rank == 0
    if first:
        at = f", from step {trainer.step}" if trainer.step else ""
        print(
            f"{model.parameter_count:,} parameters; {trainer.data.nbytes:,} bytes to train on, "
            f"{trainer.heldout.nbytes:,} held out{at}",
            flush=True,
        )
    try:
        outcome = trainer.run()
    except Interrupted as interrupt:
        raise Interrupted(f"{interrupt} Go on with: ritornello train --out {out} --resume") from None
    if first:
        print(
            f"held-out bits per byte: {outcome.bits_per_byte:.3f} after {outcome.step} steps, {outcome.seconds:.0f} s"
        )
        print(f"written: {outcome.checkpoint}, {out / 'curve.csv'}")
        print(f"try: ritornello generate {out} --prompt 'def '")


def _resumed(given: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of the run, and what it says of its training."""
    folder = latest(given["out"])
    if folder is None:
        raise InputError(f"`out` is {str(given['out'])!r}, where there is no run to resume. Start it without --resume.")
    fixed = [*Settings.names(), "layer", "pattern", "width", "depth", "tokenizer"]
    wrong = [name for name in fixed if name in given and name not in MAY_CHANGE]
    found = read_training(folder)
    wrong = [name for name in wrong if given[name] != found["settings"].get(name, ...)]
    if wrong:
        raise InputError(
            f"--{wrong[0].replace('_', '-')} cannot be changed in a run that is resumed. Leave it out, or start a new "
            "run with another --out."
        )
    return folder, found


def _settings(given: dict[str, Any], found: Any, out: Path) -> tuple[Settings, dict[str, Any]]:
    """The settings, and the record of where the data comes from: of the checkpoint, with what was given anew."""
    values = {name: given[name] for name in Settings.names() if name in given}
    if found is not None:
        training = found[1]
        record = {"heldout": None} | (training["record"] if isinstance(training["record"], dict) else {})
        if "data" not in given and "data" not in record:
            raise InputError(f"The run in {str(out)!r} does not say what it was trained on. Give --data.")
        record = record | ({"data": _absolute(given["data"])} if "data" in given else {})
        record = record | ({"heldout": given["heldout"]} if "heldout" in given else {})
        return Settings(**training["settings"] | values), record
    if latest(out) is not None:
        raise InputError(f"`out` is {str(out)!r}, which holds a run. Go on with it by --resume, or give another --out.")
    if "data" not in given:
        raise InputError("`data` is missing. Give text to train on, e.g. --data my_texts/ or --data book.txt.")
    record = {
        "data": _absolute(given["data"]),
        "heldout": given.get("heldout"),
        "tokenizer": str(given["tokenizer"].resolve()) if "tokenizer" in given else None,
    }
    return Settings(**values), record


def _absolute(places: list[str]) -> list[str]:
    """Places that mean the same from another folder."""
    return [place if place == "-" else str(Path(place).absolute()) for place in places]


def _config(given: dict[str, Any], vocab_size: int) -> ModelConfig:
    if "layer" in given and "pattern" in given:
        raise InputError("--layer and --pattern were both given; --layer A is --pattern A. Give one of them.")
    words = given.get("pattern") or given.get("layer") or MODEL["pattern"]
    sizes = {name: given.get(name, MODEL[name]) for name in ("width", "depth")}
    return ModelConfig(vocab_size=vocab_size, pattern=parse_pattern(words), **sizes)
