"""The running softmax average, as two diagonal scans.

With G the running sum of the log decays, m_t = G_t + max(m₀, max_{s≤t} (logit_s − G_s)) is the largest exponent. Given
m, u and w follow h ← e^{log d + m_{t−1} − m_t} h + e^{logit_t − m_t} (v_t or 1), whose factors are at most one.
"""

from __future__ import annotations

import torch

from ritornello.kernels.torch._scan import Scan
from ritornello.kernels.torch._window import Windowed
from ritornello.typing import Tensor, accumulated


def _window(logits, values, log_decay, bonus, m, numerator, denominator):
    vector = values.dim() > logits.dim()
    top, before = _levels(logits, log_decay, m)
    anchor = torch.where(top.isinf(), 0.0, top)  # −∞ − (−∞): nothing has a weight yet
    fall = (before - anchor).to(logits.dtype)
    keep = (fall if log_decay is None else fall + log_decay).exp()
    add = (logits - anchor.to(logits.dtype)).exp()

    columns = accumulated(values) if vector else accumulated(values).unsqueeze(-1)
    state = torch.cat([numerator if vector else numerator.unsqueeze(-1), denominator.unsqueeze(-1)], -1)
    added = torch.cat([add.unsqueeze(-1) * columns, add.unsqueeze(-1)], -1)
    a = keep.unsqueeze(-1).expand(added.shape)
    h = Scan.apply(a.flatten(2), added.flatten(2), state.flatten(1)).reshape(added.shape)

    read = h
    if bonus is not None:
        read = _with_bonus(logits + bonus, columns, before, torch.cat([state.unsqueeze(1), h[:, :-1]], 1))
    bottom = read[..., -1:]
    output = read[..., :-1] / torch.where(bottom > 0, bottom, 1.0)
    last = h[:, -1]
    u = last[..., :-1] if vector else last[..., 0]
    shaped = output if vector else output.squeeze(-1)
    return shaped.to(values.dtype), top[:, -1].to(m.dtype), u.contiguous(), last[..., -1].contiguous()


@torch.no_grad()
def _levels(logits: Tensor, log_decay: Tensor | None, m: Tensor) -> tuple[Tensor, Tensor]:
    """m after each step and before it, in float64."""
    first = m.double().unsqueeze(1)
    total = torch.zeros_like(first) if log_decay is None else log_decay.double().cumsum(1)
    top = total + torch.maximum((logits.double() - total).cummax(1).values, first)
    return top, torch.cat([first, top[:, :-1]], 1)


def _with_bonus(logit: Tensor, columns: Tensor, m: Tensor, before: Tensor) -> Tensor:
    """The state before a step, m with u and w beside each other, and one value of weight e^logit."""
    with torch.no_grad():
        top = torch.maximum(m.to(logit.dtype), logit)
        anchor = torch.where(top.isinf(), 0.0, top)
        keep = (m.to(logit.dtype) - anchor).exp().unsqueeze(-1)
    add = (logit - anchor).exp().unsqueeze(-1)
    return keep * before + torch.cat([add * columns, add], -1)


_kernel = Windowed(_window, "tttpsss", (float("-inf"), 0.0, 0.0), lambda *tensors: 4096)
forward, backward = _kernel.forward, _kernel.backward
