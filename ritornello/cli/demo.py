"""``ritornello demo``: the whole way on data that every machine has, the source code of Python's standard library.

Train a small hybrid for two minutes, compare it with compressors on files that it has not seen, stream from it, save
the state, and go on from that in a new process.
"""

from __future__ import annotations

import argparse
import bz2
import lzma
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import torch

from ritornello.cli.outputs import demand_folder
from ritornello.errors import InputError
from ritornello.models import ByteTokenizer, LanguageModel, ModelConfig
from ritornello.models.backbone import describe
from ritornello.tasks import text_files
from ritornello.tasks.text_files import Document
from ritornello.train import Settings, Tokens, Trainer, bits_per_byte, latest
from ritornello.train.checkpoint import read_training

NAME = "demo"
HELP = "Train a small hybrid on the standard library's source code for two minutes, compare, stream, and go on."
EXAMPLES = "  ritornello demo --minutes 10 --out demo\n"

# The recipe. Two minutes read a few megabytes, so what counts is many different files and few passes over the memory.
# After 250 steps (B 8, T 256, two layers) 100 kB of held-out text stood at 2.94 bits per byte where 8 streams were read
# from window to window with their state carried, at 2.60 with shuffled windows, and at 2.38 with Muon on top.
MINUTES = 2.0
HELDOUT = 0.04
GLANCE = 30_000
"""How many held-out bytes are evaluated during the training; all of them at the end."""
LEAVE_OUT = ("site-packages", "dist-packages", "__pycache__")
MODEL = ModelConfig(
    vocab_size=ByteTokenizer.vocab_size,
    width=256,
    depth=2,
    pattern=["lstm", ("gated_delta_net", {"heads": 4, "key_size": 32, "value_size": 64})],
)
TRAINING = {
    "batch": 8,
    "length": 256,
    "lr": 4e-3,
    "warmup": 0.05,
    "final_lr": 0.05,
    "weight_decay": 0.05,
    "optimizer": "muon",
    "bf16": True,
}
PROMPT = "import "
TOKENS = 300


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("--minutes", type=float, default=MINUTES, metavar="X", help=f"of training ({MINUTES:g})")
    options.add_argument("--seed", type=int, default=0, metavar="N", help="of the weights and the data (0)")
    folder = Path("ritornello-demo")
    options.add_argument("--out", type=Path, default=folder, metavar="DIR", help=f"the folder of the run ({folder})")


def run(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    settings = Settings(minutes=arguments.minutes, seed=arguments.seed, **TRAINING)
    demand_folder(out, "--out")
    _make_room(out)
    began = time.monotonic()
    library = Path(sysconfig.get_path("stdlib"))
    sources = [d for d in text_files.walk(library, LEAVE_OUT) if d.name.endswith(".py")]
    training, heldout = text_files.split(sources, HELDOUT)
    print(f"{library}: {_size(training)} to train on, {_size(heldout)} held out")
    tokens = Tokens.of(training, ByteTokenizer()), Tokens.of(heldout, ByteTokenizer())
    torch.manual_seed(settings.seed)
    model = LanguageModel(MODEL)
    names = " ".join(map(describe, MODEL.entries()))
    print(f"{names}, width {MODEL.width}: {model.parameter_count:,} parameters", flush=True)
    trainer = Trainer(model, tokens[0], _glance(heldout), settings, out, record={"demo": True})
    outcome = trainer.run()
    score = bits_per_byte(model, tokens[1])
    _compare(score, f"this model, {outcome.seconds:.0f} s of training", heldout)
    print(f"written: {outcome.checkpoint}, {out / 'curve.csv'}, {out / 'curve.png'}")
    _stream(model, out)
    print(f"\nthe whole demo took {time.monotonic() - began:.0f} s")


def _make_room(out: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    earlier = latest(out)
    if earlier is None:
        return
    if read_training(earlier)["record"] != {"demo": True}:
        raise InputError(f"`out` is {str(out)!r}, which holds a run of yours. Give another --out.")
    shutil.rmtree(out)


def _size(documents: list[Document]) -> str:
    return f"{sum(len(d.text) for d in documents) / 1e6:.2f} MB in {len(documents)} files"


def _glance(heldout: list[Document]) -> Tokens:
    """As many of the held-out files, the shortest first, as are evaluated in no time on the way."""
    chosen, total = [], 0
    for document in sorted(heldout, key=lambda d: (len(d.text), d.name)):
        if not chosen or total + len(document.text) <= GLANCE:
            chosen.append(document)
            total += len(document.text)
    return Tokens.of(chosen, ByteTokenizer())


def _compare(score: float, name: str, heldout: list[Document]) -> None:
    """The model beside what compressors need for the same files, one by one."""
    total = sum(len(d.text) for d in heldout)
    scores = {
        name: score,
        "xz -9, file by file": 8 * sum(len(lzma.compress(d.text, preset=9)) for d in heldout) / total,
        "bz2 -9, file by file": 8 * sum(len(bz2.compress(d.text, 9)) for d in heldout) / total,
    }
    print("\nheld-out bits per byte, less is better")
    for label, value in sorted(scores.items(), key=lambda item: item[1]):
        print(f"  {value:.3f}  {label}")
    print()


def _stream(model: LanguageModel, out: Path) -> None:
    """Stream, save the state, and go on in a process that has read nothing."""
    print(f"streaming from {PROMPT!r}:\n{PROMPT}", end="", flush=True)
    stream = model.stream_text(
        b"\0" + PROMPT.encode(), max_new_tokens=TOKENS, temperature=0.7, generator=torch.Generator().manual_seed(1)
    )
    for text in stream:
        print(text, end="", flush=True)
    state = out / "state.safetensors"
    stream.save(state)
    options = f"--tokens {TOKENS} --temperature 0.7 --seed 2".split()
    command = ["generate", str(out), "--state-in", str(state), *options]
    print(f"\n\na new process goes on from the state, {state.stat().st_size:,} bytes, and reads nothing again:")
    print(f"$ ritornello {' '.join(command)}", flush=True)
    subprocess.run([sys.executable, "-m", "ritornello", *command], check=True)
