"""The one table of tolerances, dtype × op. Nothing loosens it: no variable, no option, no marker.

An error is measured against the reference backend in float64 on the same (rounded) inputs:
max |got − want| ≤ tolerance · (0.1 + max |want|), for outputs, final states and gradients alike.
"""

from __future__ import annotations

import torch

from ritornello.typing import Tensor

__all__ = ["TOLERANCE", "excess", "tolerance"]

_DOUBLE = 1e-9
_COLUMNS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

# float32: sums of products of T rounded terms; the delta rules solve a triangular system on top. The half types round
# the inputs' gradients and the output once; everything between is float32.
TOLERANCE: dict[str, dict[torch.dtype, float]] = {
    op: dict(zip(_COLUMNS, row, strict=True))
    for op, row in {
        "diagonal_scan": (_DOUBLE, 1e-5, 2e-3, 1e-2),
        "block_scan": (_DOUBLE, 1e-5, 2e-3, 1e-2),
        "gated_scan": (_DOUBLE, 1e-5, 2e-3, 1e-2),
        "linear_attention": (_DOUBLE, 3e-5, 2e-3, 1e-2),
        "delta_rule": (_DOUBLE, 1e-4, 3e-3, 1e-2),
        "dplr": (_DOUBLE, 1e-4, 3e-3, 1e-2),
        "mlstm": (_DOUBLE, 1e-4, 3e-3, 1e-2),
        "softmax_scan": (_DOUBLE, 3e-5, 2e-3, 1e-2),
        "selective_scan": (_DOUBLE, 3e-5, 2e-3, 1e-2),
        "causal_conv": (_DOUBLE, 1e-5, 2e-3, 1e-2),
        "rms_norm": (_DOUBLE, 1e-5, 2e-3, 1e-2),
        "swiglu": (_DOUBLE, 1e-5, 2e-3, 1e-2),
        "layer": (_DOUBLE, 2e-4, 1e-2, 3e-2),
    }.items()
}
_OF_COMPLEX = {torch.complex64: torch.float32, torch.complex128: torch.float64}


def tolerance(op: str, dtype: torch.dtype) -> float:
    """The largest error of `op` in `dtype`, relative to 0.1 + the largest value."""
    return TOLERANCE[op][_OF_COMPLEX.get(dtype, dtype)]


def excess(got: Tensor, want: Tensor) -> float:
    """max |got − want| / (0.1 + max |want|); infinite where one of them is not a number and the other is."""
    if want.numel() == 0:
        return 0.0
    wide = torch.complex128 if want.is_complex() else torch.float64
    got, want = got.detach().to(wide), want.detach().to(wide)
    if not torch.isfinite(want).all():
        raise ValueError("The wanted values are not finite: the case is no test.")
    if not torch.isfinite(got).all():
        return float("inf")
    return float((got - want).abs().max() / (0.1 + want.abs().max()))
