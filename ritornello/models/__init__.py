"""Models: patterns of layers between an embedding and what is predicted."""

from __future__ import annotations

from ritornello.models.backbone import Backbone
from ritornello.models.config import ModelConfig, Parallel, Repeat
from ritornello.models.language_model import LanguageModel
from ritornello.models.recipes import Recipe, recipe, recipes
from ritornello.models.recorded import RecordedStep
from ritornello.models.sequence_model import SequenceModel
from ritornello.models.stream import Stream, TextStream, load_stream
from ritornello.models.tokens import ByteTokenizer, FileTokenizer

__all__ = [
    "Backbone",
    "ByteTokenizer",
    "FileTokenizer",
    "LanguageModel",
    "ModelConfig",
    "Parallel",
    "Recipe",
    "RecordedStep",
    "Repeat",
    "SequenceModel",
    "Stream",
    "TextStream",
    "load_stream",
    "recipe",
    "recipes",
]
