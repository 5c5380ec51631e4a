"""Rows of cells with a recurrent matrix, beside PyTorch's layers and torchrecurrent's cell. Both sides have the same
weights."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello import ops
from ritornello._run import run
from ritornello.cells.mgu import MGUCell
from ritornello.lab.bench.case import BOTH, FORWARD, Case, Comparison, Row, Side, Sizes, Work, compare
from ritornello.lab.bench.peers import peer
from ritornello.typing import Tensor

__all__ = ["ROWS"]

SIZES = {"B": 8, "T": 512, "d": 256}
QUICK = {"T": 64}
LIMIT = 120.0
"""Seconds: the backward pass of PyTorch's LSTM was seen to hang on a loaded machine."""


def draw(random: Random) -> Sizes:
    while True:
        sizes = {
            "B": random.choice((1, 2, 4, 8, 16, 32)),
            "T": round(2 ** random.uniform(4, 10)),
            "d": random.choice((32, 64, 96, 128, 256, 384, 512)),
        }
        if sizes["B"] * sizes["T"] * sizes["d"] ** 2 <= 2**29:
            return sizes


def work(sizes: Sizes, gates: int) -> dict[str, Work]:
    """The products with the input's and the recurrent matrix; backward takes two for each."""
    forward = 2 * 2 * gates * sizes["B"] * sizes["T"] * sizes["d"] ** 2
    return {FORWARD: Work(forward, "FLOP"), BOTH: Work(3 * forward, "FLOP")}


def lstm_of(layer: Any, x: Tensor) -> Tensor:
    u = F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0 + layer.bias_hh_l0).unflatten(-1, (4, -1))
    return ops.lstm(u, layer.weight_hh_l0.unflatten(0, (4, 1, -1)))[0]


def gru_of(layer: Any, x: Tensor) -> Tensor:
    d = layer.hidden_size
    bias = layer.bias_hh_l0[2 * d :]  # of the candidate: the reset gate multiplies it
    u = F.linear(x, layer.weight_ih_l0, layer.bias_ih_l0 + F.pad(layer.bias_hh_l0[: 2 * d], (0, d)))
    return ops.gru(u.unflatten(-1, (3, -1)), layer.weight_hh_l0.unflatten(0, (3, 1, -1)), bias)[0]


def beside_torch(kind: type[nn.LSTM | nn.GRU], ours_of: Callable, gates: int) -> Callable[[Sizes, bool], Case]:
    def make(sizes: Sizes, with_peer: bool) -> Case:
        B, T, d = (sizes[n] for n in "BTd")
        layer = kind(d, d, batch_first=True)
        x, cotangent = torch.randn(B, T, d, requires_grad=True), torch.randn(B, T, d)
        leaves = [x, *layer.parameters()]
        ours = Side(lambda: ours_of(layer, x), leaves, cotangent)
        if not with_peer:
            return Case(ours.passes(), {}, compare(ours, "reference", 1e-3), work(sizes, gates))
        theirs = Side(lambda: layer(x)[0], leaves, cotangent)
        return Case(ours.passes(), theirs.passes(), compare(ours, theirs, 1e-3), work(sizes, gates))

    return make


def lstm_bf16(sizes: Sizes, _: bool) -> Case:
    """Ours in bfloat16 beside ours in float32, from the same numbers."""
    B, T, d = (sizes[n] for n in "BTd")
    narrow = nn.LSTM(d, d, batch_first=True).bfloat16()
    wide = nn.LSTM(d, d, batch_first=True)
    wide.load_state_dict(narrow.state_dict())
    x = torch.randn(B, T, d).bfloat16()
    wide_x = x.float()
    low, full = Side(lambda: lstm_of(narrow, x)), Side(lambda: lstm_of(wide, wide_x))

    def check() -> list[Comparison]:
        return [Comparison("output", low.forward().float(), full.forward(), 3e-2)]

    return Case(low.passes(), full.passes(), check, {FORWARD: work(sizes, 4)[FORWARD]})


def mgu(sizes: Sizes, with_peer: bool) -> Case:
    """The cell, run as `Auto` chooses, beside torchrecurrent's in a loop."""
    B, T, d = (sizes[n] for n in "BTd")
    cell = MGUCell(d, d)
    x, cotangent = torch.randn(B, T, d, requires_grad=True), torch.randn(B, T, d)
    leaves = [x, cell.weight_ih, cell.weight_hh, cell.bias]
    # Flat: the peer's recurrent matrices have one dimension less.
    ours = Side(lambda: run(cell, x).y, leaves, cotangent, Tensor.flatten)
    if not with_peer:
        return Case(ours.passes(), {}, compare(ours, "reference", 1e-3), work(sizes, 2))
    other = peer("torchrecurrent", "MGUCell")(d, d, recurrent_bias=False)  # one bias as well
    other.weight_ih, other.bias_ih = cell.weight_ih, cell.bias
    other.weight_hh = nn.Parameter(cell.weight_hh.detach().flatten(0, 2))
    leaves = [x, other.weight_ih, other.weight_hh, other.bias_ih]
    theirs = Side(lambda: mgu_loop(other, x), leaves, cotangent, Tensor.flatten)
    return Case(ours.passes(), theirs.passes(), compare(ours, theirs, 1e-3), work(sizes, 2))


def mgu_loop(cell: Any, x: Tensor) -> Tensor:
    """Faster than torchrecurrent's own layer, whose loop takes slices, and than the scripted cell."""
    h, states = x.new_zeros(x.shape[0], cell.hidden_size), []
    for now in x.unbind(1):
        h = cell(now, h)
        states.append(h)
    return torch.stack(states, 1)


ROWS = [
    Row("lstm", "lstm", "torch.nn.LSTM", SIZES, beside_torch(nn.LSTM, lstm_of, 4), QUICK, {FORWARD: 1.1, BOTH: 1.1},
        draw=draw, limit=LIMIT),
    Row("lstm_bf16", "lstm", "the same in float32", SIZES, lstm_bf16, QUICK, {FORWARD: 3}, draw=draw),
    Row("gru", "gru", "torch.nn.GRU", SIZES, beside_torch(nn.GRU, gru_of, 3), QUICK, {FORWARD: 1.8, BOTH: 2.5},
        draw=draw, limit=LIMIT),
    Row("mgu", "mgu", "torchrecurrent's MGUCell in a loop over unbound inputs", SIZES, mgu, QUICK, draw=draw),
]  # fmt: skip
