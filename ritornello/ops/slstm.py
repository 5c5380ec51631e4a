"""The scalar LSTM of xLSTM: exponential gates, a normaliser, a stabiliser, and heads that mix their memory."""

from __future__ import annotations

from ritornello.ops import _cell
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["slstm"]


def _shapes(u, weight, h, c, n, m, cu_seqlens):
    return _cell.like_u(u, h, c, n, m)


_op = Op("slstm", "u weight h c n m cu_seqlens?", {}, shapes=_shapes, states=("h", "c", "n", "m"), fixed=(4,))


def slstm(
    u: Tensor,
    weight: Tensor,
    state: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """i, f, z, o = u_t + R h_{t−1}; m_t = max(log σ(f) + m_{t−1}, i), where n_{t−1} = 0 simply i;
    f' = e^{min(log σ(f) + m_{t−1} − m_t, 0)}, i' = e^{i − m_t};
    c_t = f' c_{t−1} + i' tanh(z); n_t = f' n_{t−1} + i'; h_t = σ(o) c_t / n_t, all element by element.

    A row that starts from n = 0 takes its first m from i, so that n is at least 1 from its first step on: the clamp
    n ≥ 1 of some implementations would change nothing.

    Args:
        u: the gates' share of the input, biases included, (B, T, 4, D) in the order i, f, z, o.
        weight: R, (4, H, d, d) as [gate, head, out, in] with H·d = D; one head is a dense matrix.
        state: (h, c, n, m), each (B, D); zeros where None. m is not differentiated, and c and n are defined up to it:
            compare c·eᵐ and n·eᵐ.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h over time, (B, T, D) in u's dtype; and (h, c, n, m) in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Beck et al. 2024, arXiv:2405.04517, eq. 8–17, with the log-sigmoid forget gate and the start of m as in the
    authors' kernels.
    """
    weights = {"weight": (weight, "G H d d")}
    u, (weight,), states = _cell.prepare("slstm", u, 4, weights, state, "h c n m", cu_seqlens)
    y, h, c, n, m = _op(u, weight, *states, cu_seqlens)
    return y, (h, c, n, m)
