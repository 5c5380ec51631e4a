"""How fast a layer trains, and what it keeps for the backward pass, against the length of the sequence."""

from __future__ import annotations

import time
from typing import Any

import torch

from ritornello.lab.compare.contender import pattern_model
from ritornello.models import SequenceModel
from ritornello.typing import Tensor

__all__ = ["LENGTHS", "measure_speed"]

LENGTHS = (128, 512, 2048)
VOCABULARY = 256
SECONDS, LEAST, MOST = 0.25, 2, 20


def measure_speed(label: str, width: int, depth: int) -> dict[str, Any]:
    """Tokens a second of a training step with one sequence, at its best, and the bytes that its graph holds."""
    torch.manual_seed(0)
    model = pattern_model(label, VOCABULARY, VOCABULARY, width, depth)
    rates, kept = [], []
    for length in LENGTHS:
        ids = torch.randint(VOCABULARY, (1, length))
        kept.append(_saved_bytes(model, ids))
        rates.append(length / _best_seconds(model, ids))
    return {"lengths": LENGTHS, "tokens_per_second": rates, "saved_bytes": kept}


def _best_seconds(model: SequenceModel, ids: Tensor) -> float:
    times: list[float] = []
    while len(times) < LEAST or (sum(times) < SECONDS and len(times) < MOST):
        began = time.perf_counter()
        model(ids)[0].square().mean().backward()
        times.append(time.perf_counter() - began)
    return min(times)


def _saved_bytes(model: SequenceModel, ids: Tensor) -> int:
    """What a forward pass keeps for its backward: every storage once, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        y = model(ids)[0]
    del y
    return sum(storages.values())
