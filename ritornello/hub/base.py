"""Checkpoint formats: how each is recognised, and who reads and writes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file

from ritornello import _files
from ritornello.errors import CheckpointError, InputError, nearest
from ritornello.models import FileTokenizer, LanguageModel
from ritornello.models.tokens import Tokenizer
from ritornello.typing import Tensor

__all__ = [
    "CONFIG",
    "INDEX",
    "TOKENIZER",
    "WEIGHTS",
    "Format",
    "assign",
    "compare",
    "find",
    "formats",
    "recognise",
    "register",
    "write_folder",
]

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"
INDEX = WEIGHTS + ".index.json"


@dataclass(frozen=True)
class Format:
    """One checkpoint format, one file of this folder.

    Args:
        name: e.g. ``"ritornello"``.
        recognises: whether a config.json is of this format.
        load: (folder, config) → the model, on the CPU, in the dtype that was saved; ``config["dtype"]`` is the dtype
            that was asked for, if one was, for numbers that are computed.
        save: (model, folder); None where a format is only read.
        inspect: (folder, config) → the model without its numbers, from the headers of its files; None where only `load`
            tells.
        unknown: config → the names in it that are not understood.
    """

    name: str
    recognises: Callable[[Mapping[str, Any]], bool]
    load: Callable[[Path, Mapping[str, Any]], LanguageModel]
    save: Callable[[LanguageModel, Path], None] | None = None
    inspect: Callable[[Path, Mapping[str, Any]], LanguageModel] | None = None
    unknown: Callable[[Mapping[str, Any]], list[str]] = lambda config: []


_formats: dict[str, Format] = {}


def register(format: Format) -> Format:
    """Put a format among those that `load` recognises; the first one that does is taken."""
    _formats[format.name] = format
    return format


def find(name: str) -> Format:
    """The format of that name."""
    if name not in _formats:
        raise InputError(f"There is no checkpoint format {name!r}. {nearest(name, _formats)}")
    return _formats[name]


def formats(saved: bool = False) -> list[str]:
    """The names of all formats, or of those that can be saved."""
    return sorted(f.name for f in _formats.values() if f.save is not None or not saved)


def recognise(folder: Path) -> tuple[Format, dict[str, Any]]:
    """The format of the checkpoint in a folder, and its config."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_hook=_floats)
    except FileNotFoundError:
        pickles = [p.name for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt") for p in folder.glob(pattern)]
        if pickles:
            raise CheckpointError(
                f"{str(folder)!r} holds {pickles[0]}, which is a pickle and could run any code. Pickles are never "
                "read: save the model as safetensors."
            ) from None
        raise CheckpointError(f"{str(folder)!r} has no {CONFIG}. Give a folder that rt.save wrote.") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is no JSON ({error}). Save the model again.") from None
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read: {error}.") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{str(path)!r} is no JSON object but a {type(config).__name__}. Save the model again.")
    for name in _not_numbers(config):
        raise CheckpointError(f"{str(path)!r} has {name} = NaN, which is no number. Save the model again.")
    for format in _formats.values():
        if format.recognises(config):
            return format, config
    kind = config.get("model_type") or config.get("format") or config.get("architectures")
    told = f"is of kind {kind!r}, which nothing here reads" if kind else "tells no model_type"
    raise CheckpointError(f"{str(path)!r} {told}. There are: {', '.join(_formats)}.")


def _not_numbers(value: Any, name: str = "") -> Iterator[str]:
    """Where a NaN stands."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _not_numbers(inner, f"{name}.{key}" if name else str(key))
    elif value != value:
        yield name


def _floats(value: dict[str, Any]) -> Any:
    """transformers writes what JSON has no number for as ``{"__float__": "Infinity"}``."""
    return float(value["__float__"]) if set(value) == {"__float__"} else value


def write_folder(folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], tokens: Tokenizer | None):
    """Write a checkpoint. Every file is complete on the disk before the first one takes the place of an older one."""
    text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"

    def weights(name: str) -> None:
        save_file(dict(tensors), name, {"format": "pt"})
        if isinstance(tokens, FileTokenizer):
            tokens.save(folder / TOKENIZER)

    def everything(name: str) -> None:
        Path(name).write_text(text, encoding="utf-8")
        _files.replace(folder / WEIGHTS, weights)

    try:
        _files.replace(folder / CONFIG, everything)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"The model was not saved to {str(folder)!r}: {error}. What was there before is unchanged; make room, or "
            "give a folder that can be written."
        ) from error
    (folder / INDEX).unlink(missing_ok=True)  # of shards that were there before


def assign(build: Callable[[], LanguageModel], tensors: dict[str, Tensor], source: Path) -> LanguageModel:
    """Build a model without memory and give it `tensors` for its weights, after all names and shapes were compared.

    Raises:
        CheckpointError: tensors that are missing, too many, or of another shape; they are named.
    """
    with torch.device("meta"):
        model = build()
    compare(model, tensors, source)
    if {name for name, _ in model.named_buffers()} - set(model.state_dict()):
        with torch.random.fork_rng(devices=[]):  # constants that are computed and not saved: they need a real build
            model = build()
    frozen = {n for n, p in model.named_parameters() if not p.requires_grad}
    model.load_state_dict(tensors, strict=True, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    return model


def compare(model: LanguageModel, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Whether `tensors`, with numbers or without, are the weights of a model.

    Raises:
        CheckpointError: tensors that are missing, too many, or of another shape; they are named.
    """
    expected = model.state_dict()
    wrong = [f"{n} is missing" for n in expected if n not in tensors]
    wrong += [f"{n} belongs to no layer" for n in tensors if n not in expected]
    wrong += [
        f"{n} is {tuple(t.shape)}, not {tuple(expected[n].shape)}"
        for n, t in tensors.items()
        if n in expected and t.shape != expected[n].shape
    ]
    wrong += [
        f"{n} is {t.dtype}, not a floating dtype"
        for n, t in tensors.items()
        if n in expected and expected[n].is_floating_point() and not t.is_floating_point()
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(
            f"The weights in {str(source)!r} do not fit the config beside them: {'; '.join(wrong[:5])}{more}. Save the "
            "model again, or give the config that it was saved with."
        )
