"""The torch backend: each op as a chunked or scanned tensor program, on any device PyTorch runs on.

Memory is linear in T, no (T, K, V) tensor is formed, and decays enter only as products of factors of size at most one.
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
    "gated_scan",
    "linear_attention",
    "mlstm",
    "rms_norm",
    "selective_scan",
    "softmax_scan",
    "swiglu",
):
    _complex = (torch.complex64, torch.complex128) if _op == "diagonal_scan" else ()
    register(Kernel(_op, "torch", f"ritornello.kernels.torch.{_op}", dtypes=frozenset(FLOATING + _complex)))
