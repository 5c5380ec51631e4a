"""Rows of matrix states: the gated delta rule, mLSTM, GLA, and their time per token in long sequences."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from random import Random
from typing import Any

import torch
from torch.nn import functional as F

from ritornello import ops
from ritornello.lab.bench.case import BOTH, FORWARD, MEMORY, Case, Comparison, Row, Side, Sizes, Work, compare
from ritornello.lab.bench.peers import peer
from ritornello.typing import Tensor

__all__ = ["ROWS", "gla_inputs"]

SIZES = {"B": 1, "T": 2048, "H": 8, "K": 64, "V": 64}
QUICK = {"T": 256, "H": 2}

# Operations of the recurrent form per step and head, in units of K·V: a multiply-add counts two. Forward: decay 1,
# write 2, read 2, and the delta rule's erase 2. Backward: 4 each for write, read and erase, 3 for the decay; what is
# replayed is not counted.
LINEAR = {FORWARD: 5, BOTH: 5 + 11}
DELTA = {FORWARD: 7, BOTH: 7 + 15}


def work(sizes: Sizes, counts: dict[str, int]) -> dict[str, Work]:
    unit = sizes["B"] * sizes["T"] * sizes["H"] * sizes["K"] * sizes["V"]
    return {name: Work(count * unit, "FLOP") for name, count in counts.items()}


def draw(random: Random) -> Sizes:
    """Sizes whose inputs stay below 64 MB."""
    while True:
        sizes = {
            "B": random.choice((1, 2, 4)),
            "T": round(2 ** random.uniform(5, 12)),
            "H": random.choice((1, 2, 3, 4, 8, 16)),
            "K": random.choice((16, 32, 64, 96, 128, 256)),
            "V": random.choice((16, 32, 64, 96, 128, 256)),
        }
        if sizes["B"] * sizes["T"] * sizes["H"] * max(sizes["K"], sizes["V"]) <= 2**22:
            return sizes


def draw_square(random: Random) -> Sizes:
    """The same with V = K: attention is compared at one head size."""
    sizes = draw(random)
    return sizes | {"V": sizes["K"]} if sizes["K"] <= sizes["V"] else sizes | {"K": sizes["V"]}


def draw_long(random: Random) -> Sizes:
    """Attention takes seconds here."""
    return SIZES | {"T": round(2 ** random.uniform(12, 14)), "H": random.choice((1, 2, 4))}


def judge(sizes: Sizes) -> str:
    """The backend that tells what is right: the plain loop, or chunks where autograd would keep too much of it."""
    return "reference" if prod(sizes[n] for n in "BTHKV") <= 2**26 else "torch"


def _qkv(sizes: Sizes) -> list[Tensor]:
    B, T, H, K, V = (sizes[n] for n in "BTHKV")
    q, k = (F.normalize(torch.randn(B, T, H, K), dim=-1) for _ in range(2))
    return [q, k, torch.randn(B, T, H, V)]


def _leaves(*tensors: Tensor) -> list[Tensor]:
    return [t.detach().requires_grad_() for t in tensors]


def _swap(x: Tensor) -> Tensor:
    """(B, T, H, ...) ↔ (B, H, T, ...)."""
    return x.transpose(1, 2)


def _swapped(tensors: list[Tensor]) -> list[Tensor]:
    """Leaves of a peer that has heads before time."""
    return _leaves(*(_swap(t).contiguous() for t in tensors))


def delta(sizes: Sizes, with_peer: bool) -> Case:
    B, T, H, V = (sizes[n] for n in "BTHV")
    q, k, v = _qkv(sizes)
    beta, g = torch.rand(B, T, H), F.logsigmoid(torch.randn(B, T, H) + 3)
    q, k, v, beta, g = leaves = _leaves(q, k, v, beta, g)
    cotangent = torch.randn(B, T, H, V)
    ours = Side(lambda: ops.delta_rule(q, k, v, beta, g)[0], leaves, cotangent)
    if not with_peer:
        return Case(ours.passes(), {}, compare(ours, judge(sizes), 1e-3), work(sizes, DELTA))
    chunked = peer("transformers.models.qwen3_5.modeling_qwen3_5", "torch_chunk_gated_delta_rule")
    theirs = Side(lambda: chunked(q, k, v, g=g, beta=beta)[0], leaves, cotangent)
    return Case(ours.passes(), theirs.passes(), compare(ours, theirs, 1e-3), work(sizes, DELTA))


def mlstm(sizes: Sizes, with_peer: bool) -> Case:
    B, T, H, V = (sizes[n] for n in "BTHV")
    q, k, v = _qkv(sizes)
    i, f = torch.randn(B, T, H), torch.randn(B, T, H) + 3
    q, k, v, i, f = leaves = _leaves(q * 4, k * 4, v, i, f)
    cotangent = torch.randn(B, T, H, V)
    ours = Side(lambda: ops.mlstm(q, k, v, i, f)[0], leaves, cotangent)
    if not with_peer:
        return Case(ours.passes(), {}, compare(ours, judge(sizes), 1e-3), work(sizes, LINEAR))
    chunked = peer("mlstm_kernels.torch.chunkwise.native", "mlstm_chunkwise__native_autograd")
    swapped = _swapped(leaves)  # its own layout, contiguous
    theirs = Side(lambda: chunked(*swapped), swapped, _swap(cotangent).contiguous(), _swap)
    return Case(ours.passes(), theirs.passes(), compare(ours, theirs, 5e-3), work(sizes, LINEAR))


def draw_mlstm(random: Random) -> Sizes:
    """Its peer takes whole chunks of 64 only."""
    sizes = draw(random)
    return sizes | {"T": max(64, sizes["T"] // 64 * 64)}


def gla_inputs(sizes: Sizes) -> list[Tensor]:
    q, k, v = _qkv(sizes)
    return [q, k, v, F.logsigmoid(torch.randn_like(k)) / 16]


def gla(sizes: Sizes, with_peer: bool) -> Case:
    """Attention computes something else, so ours is checked by another backend."""
    leaves = _leaves(*gla_inputs(sizes))
    cotangent = torch.randn_like(leaves[2])
    ours = Side(lambda: gated(*leaves)[0], leaves, cotangent)
    check = compare(ours, judge(sizes), 1e-3)
    theirs: dict[str, Any] = {}
    if with_peer:
        swapped = _swapped(leaves[:3])
        theirs = Side(lambda: attention(*swapped), swapped, _swap(cotangent).contiguous()).passes()
    return Case(ours.passes(), theirs, check, work(sizes, LINEAR))


def gated(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return ops.linear_attention(q, k, v, log_decay, state=state)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def per_token(sizes: Sizes, _: bool) -> Case:
    """A long sequence beside the same tokens in short ones: a ratio of 1 says that a token takes as long at any T."""
    short = sizes["short"]
    whole = gla_inputs(sizes)
    pieces = list(zip(*(x.split(short, 1) for x in whole), strict=True))

    def cut() -> Iterator[Tensor]:
        state = None
        for piece in pieces:
            o, state = gated(*piece, state=state)
            yield o

    @torch.no_grad()
    def check() -> list[Comparison]:
        return [Comparison("output", gated(*whole)[0], torch.cat(list(cut()), 1), 1e-3)]

    long = Side(lambda: gated(*whole)[0])
    parts = Side(lambda: [gated(*piece)[0] for piece in pieces][-1])
    return Case(long.passes(), parts.passes(), check, {FORWARD: work(sizes, LINEAR)[FORWARD]})


ROWS = [
    Row("gated_delta_rule", "delta_rule", "transformers' torch_chunk_gated_delta_rule", SIZES, delta, QUICK,
        {FORWARD: 8, BOTH: 6}, {FORWARD: 0.4, BOTH: 0.3}, MEMORY, draw),
    Row("mlstm", "mlstm", "mlstm_kernels' native chunkwise", SIZES, mlstm, QUICK,
        {FORWARD: 3, BOTH: 3.5}, {FORWARD: 0.4, BOTH: 0.3}, MEMORY, draw_mlstm),
    Row("gla", "linear_attention", "causal SDPA", SIZES, gla, QUICK,
        {FORWARD: 4, BOTH: 3}, {FORWARD: 0.4, BOTH: 0.3}, MEMORY, draw_square),
    Row("gla_16k", "linear_attention", "causal SDPA", SIZES | {"T": 16384}, gla, QUICK | {"T": 2304},
        {FORWARD: 20, BOTH: 3}, {FORWARD: 0.4, BOTH: 0.3}, MEMORY, draw_long),
    Row("gated_delta_rule_torch", "delta_rule", "transformers' torch_chunk_gated_delta_rule", SIZES, delta, QUICK,
        {FORWARD: 1, BOTH: 1}, draw=draw, backend="torch"),
    Row("time_per_token", "linear_attention", "the same tokens in sequences of 2,048",
        SIZES | {"T": 131072, "short": 2048}, per_token, {"T": 4096, "short": 1024}, {FORWARD: 1 / 1.2}, long=True),
]  # fmt: skip
