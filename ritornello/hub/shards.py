"""Safetensors on the disk: one file, or several with an index beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch

from ritornello.errors import CheckpointError
from ritornello.hub.base import INDEX, WEIGHTS
from ritornello.typing import Tensor

__all__ = ["Header", "Shards"]

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32,
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file tells of a tensor before it is read."""

    file: Path
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * DTYPES.get(self.dtype, torch.uint8).itemsize

    def shell(self) -> Tensor:
        """The tensor without its numbers."""
        return torch.empty(self.shape, dtype=DTYPES.get(self.dtype, torch.uint8), device="meta")


class Shards:
    """The tensors of a folder by name: `headers` at once, the numbers when they are asked for.

    Raises:
        CheckpointError: no weights, a file of the index that is not there, or one that was cut short.
    """

    def __init__(self, folder: Path):
        self._open: dict[Path, safetensors.safe_open] = {}
        self.headers: dict[str, Header] = {}
        for path in _files_of(folder):
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118
                    if name in self.headers:
                        raise CheckpointError(
                            f"{name} is in {str(self.headers[name].file)!r} and in {path.name!r}, and nothing tells "
                            "which is meant. Copy the checkpoint again."
                        )
                    part = file.get_slice(name)
                    self.headers[name] = Header(path, tuple(part.get_shape()), part.get_dtype())

    def mapped(self, name: str) -> Tensor:
        """A tensor on the pages of its file: it is read when it is used, and shared with what else reads the file."""
        path = self.headers[name].file
        if path not in self._open:
            self._open[path] = _opened(path)
        return self._open[path].get_tensor(name)

    def several(self, names: Iterable[str]) -> list[Tensor]:
        """Tensors to make others of: the pages that they stand on are given back with the last of them."""
        found: list[Tensor] = []
        for name in names:
            with _opened(self.headers[name].file) as file:
                found.append(file.get_tensor(name))
        return found


def _files_of(folder: Path) -> Iterator[Path]:
    index = folder / INDEX
    if not index.is_file():
        yield folder / WEIGHTS
        return
    try:
        text = index.read_text(encoding="utf-8")
        names = sorted(set(json.loads(text, object_pairs_hook=_once)["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{str(index)!r} is no index of weights ({error}). Copy the checkpoint again.") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:  # an index may not lead out of its folder
            raise CheckpointError(f"{str(index)!r} names {name!r}, which is no file beside it. Copy it again.")
        yield folder / name


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON without the same name twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in dict(pairs[:i]))
        raise ValueError(f"{twice} is there twice")
    return found


def _opened(path: Path) -> safetensors.safe_open:
    if not path.is_file():
        pickles = sorted(p.name for pattern in ("*.bin", "*.pt", "*.pth") for p in path.parent.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"{str(path.parent)!r} holds {pickles[0]}, which is a pickle and could run any code. Pickles are "
                "never read: save the model as safetensors."
            )
        raise CheckpointError(f"There is no weights file {str(path)!r}. Copy the whole checkpoint folder.")
    try:
        return safetensors.safe_open(str(path), "pt")
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{str(path)!r} is no whole safetensors file ({error}). Copy or save the checkpoint again."
        ) from None
