"""The scan of blocks of diagonals, h_i ← Σ_j a_ij ⊙ h_j + b_i."""

from __future__ import annotations

from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["block_scan"]


def _shapes(a, b, state, cu_seqlens):
    return [(b.shape, b.dtype), (state.shape, state.dtype)]


_op = Op("block_scan", "a b state cu_seqlens?", {}, shapes=_shapes)


def block_scan(
    a: Tensor, b: Tensor, state: Tensor | None = None, *, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """h_{t,i} = Σ_j a_{t,ij} ⊙ h_{t−1,j} + b_{t,i}, for all times: n states of D channels, mixed channel by channel.

    It is how an error runs through a cell of several state tensors that act channel by channel (an LSTM's h and c).

    Args:
        a: (B, T, n, n, D), of any sign.
        b: (B, T, n, D).
        state: h before the first step, (B, n, D); zero where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h at all times, (B, T, n, D) in the dtype of `a` and `b`; and the last h, (B, n, D) in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Danieli et al. 2025, "ParaRNN", arXiv:2510.21450, section 3 (block-diagonal Jacobians).
    """
    sizes = _check.shapes("block_scan", {}, a=(a, "B T n n D"), b=(b, "B T n D"))
    sizes["N"] = _check.state_batch("block_scan", cu_seqlens, sizes)
    _check.shapes("block_scan", sizes, state=(state, "N n D?"))
    a, b = _check.together("block_scan", a, b)
    wide = _check.Wide(b, (sizes["N"], sizes["n"], sizes["D"]))
    return _op(a, b, wide.state(state), cu_seqlens)
