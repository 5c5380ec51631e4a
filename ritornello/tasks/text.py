"""Byte-level language modelling on files of one's own."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import torch

from ritornello.tasks import text_files
from ritornello.tasks._draw import check, integers
from ritornello.tasks.base import About, Batch, Task, Training
from ritornello.typing import Tensor

__all__ = ["Text"]


@cache
def _text(data: tuple[str, ...], heldout: float, split: str) -> Tensor:
    """(N,) the bytes of a split, documents one after the other with a zero between them."""
    found = text_files.read(data or (Path(sysconfig.get_paths()["stdlib"], "email"),))
    parts = text_files.split(found, heldout)
    joined = b"\0".join(d.text for d in parts[split == "test"])
    return torch.frombuffer(bytearray(joined), dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True)
class Text(Task):
    """x₁ x₂ …, bytes of a window anywhere in the files: at each say the next. Bits per byte are `loss` / ln 2.

    There is no rule that solves it: the ceiling is unknown, and the solver looks the window up in the files.

    Fields:
        data: files, folders or globs; where empty the package `email` of Python's standard library.
        heldout: the part of all bytes that is of the test, in whole files.
    """

    name: ClassVar[str] = "text"
    about: ClassVar[About] = About(
        title="Byte-level language modelling",
        paper="files of one's own",
        tests="What a small language model makes of real text.",
    )
    small: ClassVar = MappingProxyType(
        {
            "train_length": 128,
            "test_lengths": (128, 256, 512),
            "training": Training(steps=500, batch=32, learning_rates=(3e-3, 1e-3)),
        }
    )

    prefixes: ClassVar[bool] = True

    data: tuple[str, ...] = ()
    heldout: float = 0.1
    train_length: int = 512
    test_lengths: tuple[int, ...] = (512, 1024, 2048)
    training: Training = Training(steps=20_000, batch=32, learning_rates=(1e-3, 5e-4), weight_decay=0.1)

    @property
    def inputs(self) -> int:
        return 256

    @property
    def classes(self) -> int:
        return 256

    def _draw(self, batch: int, length: int | None, generator: torch.Generator, split: str) -> Batch:
        length = length or self.train_length
        text = _text(self.data, self.heldout, split)
        check(
            len(text) > length,
            f"`data` has {len(text)} bytes to {split} on; `length` {length} needs one more than that.",
        )
        starts = integers(0, len(text) - length, (batch, 1), generator)
        window = text[starts + torch.arange(length + 1)].long()
        return Batch(window[:, :-1], window[:, 1:], torch.ones(batch, length, dtype=torch.bool))

    def solve(self, inputs: Tensor) -> Tensor:
        texts = [_text(self.data, self.heldout, split).numpy().tobytes() for split in ("train", "test")]
        after = []
        for row in inputs.tolist():
            window = bytes(row)
            text = next((t for t in texts if window in t[:-1]), b"")
            after.append(text[text.find(window) + len(window)] if text else 0)
        return torch.cat((inputs[:, 1:], torch.tensor(after).unsqueeze(1)), 1)
