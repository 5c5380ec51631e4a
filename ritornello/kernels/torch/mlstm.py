"""xLSTM's matrix memory, as linear attention.

The stabiliser has a closed form, m_t = F_t + max(m₀, max_{s≤t} (i_s − F_s)) with F the running sum of log σ(f). With
it, the memory is linear attention with log decay log σ(f_t) + m_{t−1} − m_t ≤ 0 and keys e^{i_t − m_t} k_t; the
normaliser is one more column of values, which are 1.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid, pad

from ritornello.kernels.torch._window import Windowed
from ritornello.kernels.torch.linear_attention import attend
from ritornello.typing import accumulated


def _window(q, k, v, i, f, C, n, m, scale, eps):
    log_f = logsigmoid(f)
    with torch.no_grad():
        total = log_f.double().clamp(min=-10000.0).cumsum(1)  # −∞ − (−∞) is no number; the decay keeps its −∞
        level = (i.double() - total).cummax(1).values
        level = total + torch.maximum(level, m.double().unsqueeze(1))
        before = torch.cat([m.double().unsqueeze(1), level[:, :-1]], 1)
        fall, top = (before - level).to(i.dtype), level.to(i.dtype)
    log_decay = log_f + fall
    key = accumulated(k) * (i - top).exp().unsqueeze(-1)
    value = pad(accumulated(v), (0, 1), value=1.0)
    memory = torch.cat([C, n.unsqueeze(-1)], -1)
    read, memory = attend(accumulated(q), key, value, log_decay, None, None, memory, scale)
    norm = torch.maximum(read[..., -1].abs(), (-top).exp()) + eps
    output = (read[..., :-1] / norm.unsqueeze(-1)).to(v.dtype)
    return output, memory[..., :-1].contiguous(), memory[..., -1].contiguous(), top[:, -1].contiguous()


# The padding keeps everything (σ(f) = 1) and adds nothing (e^i = 0).
_kernel = Windowed(_window, "tttttsss", (0.0, 0.0, 0.0, float("-inf"), float("inf")), lambda *tensors: 2048)
forward, backward = _kernel.forward, _kernel.backward
