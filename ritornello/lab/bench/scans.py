"""Rows of scans: minGRU, the bare diagonal scan, and the element-wise nonlinear cell beside an eager loop."""

from __future__ import annotations

from random import Random

import torch
from torch import nn
from torch.nn import functional as F

from ritornello import ops
from ritornello._run import run
from ritornello.cells.min_gru import MinGRUCell
from ritornello.lab.bench.case import BOTH, FORWARD, MEMORY, Case, Row, Side, Sizes, Work, compare
from ritornello.lab.bench.peers import peer
from ritornello.typing import Tensor

__all__ = ["ROWS"]


def draw(random: Random) -> Sizes:
    while True:
        sizes = {
            "B": random.choice((1, 2, 4, 8)),
            "T": round(2 ** random.uniform(5, 13)),
            "d": random.choice((16, 64, 100, 256, 512, 1024)),
        }
        if 2**12 <= sizes["B"] * sizes["T"] * sizes["d"] <= 2**22:
            return sizes


def traffic(sizes: Sizes, forward: int, backward: int) -> dict[str, Work]:
    """Tensors of (B, T, d) float32 that must be read or written at least once."""
    unit = 4 * sizes["B"] * sizes["T"] * sizes["d"]
    return {FORWARD: Work(forward * unit, "B"), BOTH: Work((forward + backward) * unit, "B")}


def min_gru(sizes: Sizes, with_peer: bool) -> Case:
    """The whole layer, its projection included; both have the same weights."""
    B, T, d = (sizes[n] for n in "BTd")
    cell = MinGRUCell(d, d)
    x, cotangent = torch.randn(B, T, d, requires_grad=True), torch.randn(B, T, d)
    leaves = [x, cell.proj.weight]
    ours = Side(lambda: run(cell, x).y, leaves, cotangent)
    work = {FORWARD: Work(4 * B * T * d * d, "FLOP"), BOTH: Work(12 * B * T * d * d, "FLOP")}
    if not with_peer:
        return Case(ours.passes(), {}, compare(ours, "reference", 1e-3), work)
    layer, wide = (peer("minGRU_pytorch", "minGRU")(d) for _ in range(2))
    layer.to_hidden_and_gate.weight = cell.proj.weight
    theirs = Side(lambda: layer(x), leaves, cotangent)
    # The judge is the peer in float64: its sums of logarithms grow with T, and in float32 what they lose of their last
    # bits comes out of the exponential as 4 % of a gradient at T = 7,532.
    wide.double().to_hidden_and_gate.weight = nn.Parameter(cell.proj.weight.detach().double())
    x64 = x.detach().double().requires_grad_()
    judge = Side(lambda: wide(x64), [x64, wide.to_hidden_and_gate.weight], cotangent.double())
    return Case(ours.passes(), theirs.passes(), compare(ours, judge, 1e-3), work)


def heinsen(sizes: Sizes, with_peer: bool) -> Case:
    """The scan alone, from the logarithms that its peer wants: each side is given what it takes."""
    B, T, d = (sizes[n] for n in "BTd")
    log_a, log_b = F.logsigmoid(torch.randn(B, T, d) + 1), torch.randn(B, T, d)
    a, b = log_a.exp().requires_grad_(), log_b.exp().requires_grad_()
    cotangent = torch.randn(B, T, d)
    ours = Side(lambda: ops.diagonal_scan(a, b)[0], [a, b], cotangent)
    check, work = compare(ours, "reference", 1e-3), traffic(sizes, 3, 5)
    if not with_peer:
        return Case(ours.passes(), {}, check, work)
    scan = peer("minGRU_pytorch.minGRU", "heinsen_associative_scan_log")
    logs = [log_a.requires_grad_(), log_b.requires_grad_()]
    theirs = Side(lambda: scan(*logs), logs, cotangent)
    return Case(ours.passes(), theirs.passes(), check, work)


def diagonal_scan(sizes: Sizes, _: bool) -> Case:
    B, T, d = (sizes[n] for n in "BTd")
    a, b = torch.rand(B, T, d, requires_grad=True), torch.randn(B, T, d, requires_grad=True)
    ours = Side(lambda: ops.diagonal_scan(a, b)[0], [a, b], torch.randn(B, T, d))
    return Case(ours.passes(), {}, compare(ours, "reference", 1e-4), traffic(sizes, 3, 5))


def para_gru(sizes: Sizes, with_peer: bool) -> Case:
    B, T, d = (sizes[n] for n in "BTd")
    u, weight = torch.randn(B, T, 3, d, requires_grad=True), torch.randn(3, d, requires_grad=True)
    leaves, cotangent = [u, weight], torch.randn(B, T, d)
    ours = Side(lambda: ops.para_gru(u, weight)[0], leaves, cotangent)
    if not with_peer:
        return Case(ours.passes(), {}, compare(ours, "reference", 1e-3), traffic(sizes, 4, 8))
    theirs = Side(lambda: para_gru_loop(u, weight), leaves, cotangent)
    return Case(ours.passes(), theirs.passes(), compare(ours, theirs, 1e-3), traffic(sizes, 4, 8))


def para_gru_loop(u: Tensor, weight: Tensor) -> Tensor:
    """The cell step by step. Inputs are unbound: slices would make the backward pass quadratic in T."""
    a_z, a_r, a_c = weight.unbind()
    h, states = u.new_zeros(u.shape[0], u.shape[3]), []
    for u_z, u_r, u_c in zip(*(gate.unbind(1) for gate in u.unbind(2)), strict=True):
        z = torch.sigmoid(torch.addcmul(u_z, a_z, h))
        r = torch.sigmoid(torch.addcmul(u_r, a_r, h))
        h = torch.lerp(h, torch.tanh(torch.addcmul(u_c, a_c * h, r)), z)
        states.append(h)
    return torch.stack(states, 1)


LAYER = {"B": 4, "T": 2048, "d": 256}
QUICK = {"T": 256}

ROWS = [
    Row("min_gru", "diagonal_scan", "minGRU-pytorch", LAYER, min_gru, QUICK, {FORWARD: 6, BOTH: 5}, draw=draw),
    Row("para_gru", "para_gru", "an eager loop over the step", LAYER | {"T": 4096}, para_gru, QUICK,
        {FORWARD: 10, BOTH: 10}, memory=MEMORY, draw=draw),
    Row("diagonal_scan", "diagonal_scan", "none", {"B": 4, "T": 4096, "d": 2048}, diagonal_scan, {"T": 64},
        shares={FORWARD: 0.6}, memory=MEMORY),
    Row("diagonal_scan_torch", "diagonal_scan", "minGRU-pytorch's heinsen_associative_scan_log", LAYER, heinsen, QUICK,
        {FORWARD: 3, BOTH: 3}, draw=draw, backend="torch"),
]  # fmt: skip
