"""What the commands that are given a model share."""

from __future__ import annotations

from pathlib import Path

from ritornello import hub
from ritornello.models import ByteTokenizer, LanguageModel
from ritornello.train import boundary, model_folder

__all__ = ["lead", "load_model", "place"]


def load_model(name: str) -> LanguageModel:
    """The model of a run, of a folder, or of an id on the hub."""
    return hub.load(place(name))


def place(name: str) -> Path | str:
    """Where a model lies: the newest checkpoint of a run, a folder, or an id on the hub."""
    folder = model_folder(name)
    return folder if folder.is_dir() else name


def lead(model: LanguageModel) -> list[int]:
    """The ids that stand before a text: the boundary between documents, where the model was trained here and knows it.

    The model has tokens.
    """
    tokens = model.tokens
    assert tokens is not None
    known = isinstance(tokens, ByteTokenizer) or model.config.vocab_size == tokens.vocab_size + 1
    return [boundary(tokens)] if known else []
