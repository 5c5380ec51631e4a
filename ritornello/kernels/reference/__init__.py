"""The reference backend: each op as its equation in a loop over time, in differentiable PyTorch, on any device.

It is what the other backends are compared with, and as slow as a loop is.
"""

from __future__ import annotations

import torch

from ritornello.kernels.registry import Kernel, register
from ritornello.typing import FLOATING

for _op in (
    "block_scan",
    "causal_conv",
    "delta_rule",
    "diagonal_scan",
    "dplr",
    "elman",
    "gated_scan",
    "gru",
    "linear_attention",
    "lstm",
    "m2rnn",
    "mgu",
    "mlstm",
    "para_gru",
    "para_lstm",
    "rms_norm",
    "selective_scan",
    "slstm",
    "softmax_scan",
    "swiglu",
):
    _complex = (torch.complex64, torch.complex128) if _op == "diagonal_scan" else ()
    register(Kernel(_op, "reference", f"ritornello.kernels.reference.{_op}", dtypes=frozenset(FLOATING + _complex)))
