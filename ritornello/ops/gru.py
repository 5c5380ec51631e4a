"""The gated recurrent unit."""

from __future__ import annotations

from ritornello.ops import _cell
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["gru"]


def _shapes(u, weight, bias, state, cu_seqlens):
    return _cell.like_u(u, state)


_op = Op("gru", "u weight bias? state cu_seqlens?", {}, shapes=_shapes)


def gru(
    u: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    state: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """r = σ(u_r + R_r h_{t−1}), z = σ(u_z + R_z h_{t−1}), n = tanh(u_n + r ⊙ (R_n h_{t−1} + bias));
    h_t = (1 − z) ⊙ n + z ⊙ h_{t−1}.

    Args:
        u: the gates' share of the input, (B, T, 3, D) in the order r, z, n of torch.nn.GRU, with every bias but `bias`.
        weight: R, (3, H, d, d) as [gate, head, out, in] with H·d = D; one head is a dense matrix.
        bias: (D,), the part of n's bias that the reset gate multiplies (torch.nn.GRU's b_hn); none where None.
        state: h before the first step, (B, D); zero where None.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h over time, (B, T, D) in u's dtype; and the last h in float32 or wider.

    Raises:
        InputError: shapes or dtypes that do not fit.

    Source: Cho et al. 2014, arXiv:1406.1078, with the reset after the product as in torch.nn.GRU.
    """
    weights = {"weight": (weight, "G H d d"), "bias": (bias, "D?")}
    u, (weight, bias), (h,) = _cell.prepare("gru", u, 3, weights, state, "h", cu_seqlens)
    return _op(u, weight, bias, h, cu_seqlens)
