"""y_t = act(bias + Σ_j weight_j ⊙ x_{t−W+1+j}): a sum of W shifted inputs. Each sequence is preceded by its window."""

from __future__ import annotations

import torch
from torch.nn.functional import silu

from ritornello.kernels.recompute import recomputed
from ritornello.typing import Tensor, accumulated


def _conv(x, weight, bias, state, cu_seqlens, activation):
    dtype, width = x.dtype, weight.shape[1]
    before = state.mT
    if cu_seqlens is None:
        full = torch.cat([before, x], 1)
        last = full[:, full.shape[1] - width + 1 :]
    else:
        full, tokens, last = _interleaved(x, before, cu_seqlens)
    wide, taps = accumulated(full), accumulated(weight).unbind(1)
    steps = full.shape[1] - width + 1
    y = wide[:, :steps] * taps[0]
    for shift, tap in enumerate(taps[1:], start=1):
        y = torch.addcmul(y, wide[:, shift : shift + steps], tap)
    if bias is not None:
        y = y + accumulated(bias)
    y = silu(y) if activation == "silu" else y
    if cu_seqlens is not None:
        y = y[:, tokens]
        y = torch.cat([y, y.new_zeros(1, x.shape[1] - y.shape[1], y.shape[2])], 1)
    return y.to(dtype), last.mT.contiguous()


def _interleaved(x: Tensor, before: Tensor, cu_seqlens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sequences in one row, each after its window; where each token's output is found; and the last windows."""
    rows, window, width = before.shape
    index = torch.arange(rows, device=x.device)
    used = int(cu_seqlens[-1])
    tokens = torch.arange(used, device=x.device) + torch.repeat_interleave(index, cu_seqlens.diff()) * window
    inside = torch.arange(window, device=x.device)
    starts = (cu_seqlens[:-1] + index * window).unsqueeze(1) + inside
    ends = (cu_seqlens[1:] + index * window).unsqueeze(1) + inside
    full = x.new_zeros(used + rows * window, width)
    full = full.index_copy(0, tokens + window, x[0, :used]).index_copy(0, starts.flatten(), before.flatten(0, 1))
    return full.unsqueeze(0), tokens, full[ends.flatten()].reshape(before.shape)


def forward(x, weight, bias, state, cu_seqlens, activation, save):
    with torch.no_grad():
        return _conv(x, weight, bias, state, cu_seqlens, activation), None


def backward(grads, trace, needs, x, weight, bias, state, cu_seqlens, activation):
    def run(x, weight, bias, state):
        return _conv(x, weight, bias, state, cu_seqlens, activation)

    return [*recomputed(run, (x, weight, bias, state), needs[:4], grads), None]
