"""Training a language model on text: batches, the loop, evaluation, checkpoints that resume exactly."""

from __future__ import annotations

from ritornello.train.batches import Batch, Packed, Streams, Tokens, boundary, vocabulary
from ritornello.train.checkpoint import latest, model_folder
from ritornello.train.evaluate import bits_per_byte
from ritornello.train.settings import Settings
from ritornello.train.trainer import Divergence, Interrupted, Outcome, Trainer

__all__ = [
    "Batch",
    "Divergence",
    "Interrupted",
    "Outcome",
    "Packed",
    "Settings",
    "Streams",
    "Tokens",
    "Trainer",
    "bits_per_byte",
    "boundary",
    "latest",
    "model_folder",
    "vocabulary",
]
