"""The running softmax average, step by step."""

from __future__ import annotations

import torch

from ritornello.kernels.reference._loop import loop


def forward(logits, values, log_decay, bonus, m, numerator, denominator, cu_seqlens, save):
    vector = values.dim() > logits.dim()

    def mix(m, u, w, logit, v):
        """The state (m, u, w) and one more value of weight e^logit."""
        with torch.no_grad():
            top = torch.maximum(m, logit)
            anchor = torch.where(top.isinf(), 0.0, top)  # −∞ − (−∞): nothing has a weight yet
        old, new = (m - anchor).exp(), (logit - anchor).exp()
        spread = (lambda x: x.unsqueeze(-1)) if vector else (lambda x: x)
        return top, spread(old) * u + spread(new) * v, old * w + new

    def step(logit, v, log_d, m, u, w):
        if bonus is not None:
            _, top, bottom = mix(m, u, w, logit + bonus, v)
        if log_d is not None:
            m = m + log_d
        m, u, w = mix(m, u, w, logit, v)
        if bonus is None:
            top, bottom = u, w
        bottom = bottom.unsqueeze(-1) if vector else bottom
        return top / torch.where(bottom > 0, bottom, 1.0), (m, u, w)

    return loop(step, (logits, values, log_decay), (m, numerator, denominator), values, cu_seqlens)
