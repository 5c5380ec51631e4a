"""The library's own checkpoints: a folder with config.json, model.safetensors, and tokenizer.json where there is one.

config.json: ``{"format": "ritornello", "version": 1, "tokens": "bytes" | "tokenizer.json" | null, "model": {...}}``;
`model` holds the fields of `ModelConfig`; of a model that was read from another format, ``"origin"`` is what that
format's config says beyond it. The names in model.safetensors are those of ``model.state_dict()``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ritornello.errors import CheckpointError, InputError
from ritornello.hub.base import CONFIG, TOKENIZER, WEIGHTS, Format, assign, compare, write_folder
from ritornello.hub.shards import Shards
from ritornello.models import ByteTokenizer, FileTokenizer, LanguageModel, ModelConfig

__all__ = ["FORMAT", "inspect", "load", "save"]

VERSION = 1
MODEL_TYPE = "ritornello"
"""By which transformers finds the classes of huggingface.py."""


def save(model: LanguageModel, folder: Path) -> None:
    """Write the model."""
    tokens = "bytes" if isinstance(model.tokens, ByteTokenizer) else None
    if isinstance(model.tokens, FileTokenizer):
        tokens = TOKENIZER
    config = {"format": "ritornello", "version": VERSION, "tokens": tokens, "model": model.config.to_dict()}
    config |= {"model_type": MODEL_TYPE, "architectures": ["RitornelloForCausalLM"]}
    if model.origin:
        config["origin"] = model.origin
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    write_folder(folder, config, tensors, model.tokens)


def load(folder: Path, config: Mapping[str, Any]) -> LanguageModel:
    """Read a model that `save` wrote."""
    shards = Shards(folder)  # transformers saves a large model in several
    tensors = {name: shards.mapped(name) for name in shards.headers}
    model = _built(folder, config, lambda make: assign(make, tensors, folder / WEIGHTS))
    model.origin = dict(config.get("origin") or {})
    return model


def inspect(folder: Path, config: Mapping[str, Any]) -> LanguageModel:
    """The model without its numbers, after the headers of its weights were compared."""
    with torch.device("meta"):
        model = _built(folder, config, lambda make: make())
    compare(model, {name: header.shell() for name, header in Shards(folder).headers.items()}, folder / WEIGHTS)
    return model


def _built(
    folder: Path, config: Mapping[str, Any], build: Callable[[Callable[[], LanguageModel]], LanguageModel]
) -> LanguageModel:
    where = str(folder / CONFIG)
    version = config.get("version")
    if version != VERSION:
        raise CheckpointError(
            f"{where!r} is of version {version!r}; this ritornello reads version {VERSION}. "
            + ("Install a newer one." if isinstance(version, int) and version > VERSION else "Save the model again.")
        )
    fields = config.get("model")
    if not isinstance(fields, dict):
        raise CheckpointError(f"{where!r} has no field 'model' with the model's config. Save the model again.")
    kind = config.get("tokens")
    if kind not in ("bytes", TOKENIZER, None):
        raise CheckpointError(f"{where!r} names the tokens {kind!r}; wanted 'bytes', {TOKENIZER!r} or null.")
    tokens = ByteTokenizer() if kind == "bytes" else FileTokenizer(folder / TOKENIZER) if kind else None
    try:
        made = ModelConfig.from_dict(fields)
        return build(lambda: LanguageModel(made, tokens))
    except CheckpointError:
        raise
    except (InputError, TypeError) as error:
        raise CheckpointError(f"{where!r} describes no model that can be built: {error}") from error


FORMAT = Format("ritornello", lambda config: config.get("format") == "ritornello", load, save, inspect)
