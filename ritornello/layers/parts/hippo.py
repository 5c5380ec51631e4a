"""HiPPO: linear systems dc/dt = A c + B f whose state holds the best polynomial approximation of what f was so far.

All return float64. Gu et al. 2020, arXiv:2008.07669, theorems 1 and 2 and appendix D (signs as in dc/dt = A c + B f).
"""

from __future__ import annotations

import torch

from ritornello.errors import InputError, nearest
from ritornello.typing import Tensor

__all__ = ["discretize", "lagt", "legs", "legs_normal", "legt"]

METHODS = ("euler", "bilinear", "zoh")


def legs(size: int) -> tuple[Tensor, Tensor]:
    """A (size, size) and B (size,) of LegS: t dc/dt = A c + B f, the whole past on [0, t] in Legendre polynomials.

    c_n(t) = ∫₀¹ f(s t) √(2n + 1) P_n(2s − 1) ds; A_nk = −√((2n + 1)(2k + 1)) for n > k, −(n + 1) for n = k, else 0;
    B_n = √(2n + 1).
    """
    n = torch.arange(size, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    A = -(root.unsqueeze(1) * root).tril(-1) - torch.diag(n + 1)
    return A, root


def legt(size: int, window: float = 1.0) -> tuple[Tensor, Tensor]:
    """A (size, size) and B (size,) of LegT: the last `window` of time in Legendre polynomials, every weight the same.

    c_n(t) = (2n + 1) ∫₀¹ f(t − s window) P_n(2s − 1) ds, for an f of a degree below `size`; A_nk = −(2n + 1) (−1)^{n−k}
    for n ≥ k, −(2n + 1) for n < k; B_n = (2n + 1)(−1)ⁿ; both divided by `window`: the scaling of the Legendre memory
    unit.
    """
    n = torch.arange(size, dtype=torch.float64)
    row, column = n.unsqueeze(1), n
    signs = torch.where(row >= column, 1 - 2 * ((row - column) % 2), 1.0)
    A = -(2 * row + 1) * signs
    B = (2 * n + 1) * (1 - 2 * (n % 2))
    return A / window, B / window


def lagt(size: int) -> tuple[Tensor, Tensor]:
    """A (size, size) and B (size,) of LagT: the past with weights e^{−age} in Laguerre polynomials.

    c_n(t) = ∫₀^∞ f(t − s) e^{−s} L_n(s) ds; A_nk = −1 for n ≥ k, else 0; B_n = 1.
    """
    A = -torch.ones(size, size, dtype=torch.float64).tril()
    return A, torch.ones(size, dtype=torch.float64)


def legs_normal(size: int) -> tuple[Tensor, Tensor]:
    """The eigenvalues (size,) and unitary eigenvectors (size, size) of LegS's normal part, A + p pᵀ, p_n = √(n + ½).

    In the order of their imaginary parts, the first half of the eigenvalues below zero; their real parts are −½. Gu et
    al. 2021, arXiv:2111.00396, theorem 1.
    """
    A, _ = legs(size)
    p = (torch.arange(size, dtype=torch.float64) + 0.5).sqrt()
    normal = A + p.unsqueeze(1) * p
    skew = (normal - normal.mT) / 2
    imaginary, vectors = torch.linalg.eigh(-1j * skew.to(torch.complex128))
    return torch.complex(torch.full_like(imaginary, -0.5), imaginary), vectors


def discretize(A: Tensor, B: Tensor, step: float = 1.0, method: str = "zoh") -> tuple[Tensor, Tensor]:
    """Ā (N, N) and B̄ (N,) with c ← Ā c + B̄ f for steps of `step`.

    ``"zoh"``: exact for an f that is constant between the steps; ``"bilinear"``: the trapezoid rule; ``"euler"``.

    Raises:
        InputError: another method.
    """
    if method not in METHODS:
        raise InputError(f"`method` of discretize is {method!r}. {nearest(str(method), METHODS)}")
    size = A.shape[0]
    eye = torch.eye(size, dtype=A.dtype, device=A.device)
    if method == "euler":
        return eye + step * A, step * B
    if method == "bilinear":
        before, after = eye - step / 2 * A, eye + step / 2 * A
        return torch.linalg.solve(before, after), torch.linalg.solve(before, step * B)
    # The exponential of [[A, B], [0, 0]]: no inverse of A is needed.
    joined = torch.zeros(size + 1, size + 1, dtype=A.dtype, device=A.device)
    joined[:size, :size], joined[:size, size] = A, B
    exact = torch.linalg.matrix_exp(step * joined)
    return exact[:size, :size], exact[:size, size]
