"""The HiPPO operators against the integrals that define their states, and the discretisations against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.polynomial import laguerre, legendre

from ritornello.errors import InputError
from ritornello.layers.parts import hippo

SIZE = 6


def signal(t):
    return 0.3 * t**3 - t**2 + 2 * t - 1  # a polynomial: LegT is exact for degrees below SIZE


def legs_state(t):
    x, w = legendre.leggauss(40)
    s, w = (x + 1) / 2, w / 2
    return np.array(
        [(w * signal(s * t) * (2 * n + 1) ** 0.5 * legendre.legval(x, _unit(n))).sum() for n in range(SIZE)]
    )


def legt_state(t, window):
    x, w = legendre.leggauss(40)
    s, w = (x + 1) / 2, w / 2
    return np.array(
        [(2 * n + 1) * (w * signal(t - s * window) * legendre.legval(x, _unit(n))).sum() for n in range(SIZE)]
    )


def lagt_state(t):
    s, w = laguerre.laggauss(40)
    return np.array([(w * signal(t - s) * laguerre.lagval(s, _unit(n))).sum() for n in range(SIZE)])


def _unit(n):
    return [0] * n + [1]


def _slope(state, t):
    e = 1e-5
    return (state(t + e) - state(t - e)) / (2 * e)


def test_the_equations_hold_for_the_states() -> None:
    t, window = 1.7, 0.8
    for (A, B), state, factor in (
        (hippo.legs(SIZE), legs_state, t),
        (hippo.legt(SIZE, window), lambda t: legt_state(t, window), 1.0),
        (hippo.lagt(SIZE), lagt_state, 1.0),
    ):
        want = A.numpy() @ state(t) + B.numpy() * signal(t)
        np.testing.assert_allclose(factor * _slope(state, t), want, rtol=1e-6, atol=1e-6)


def test_legs_is_normal_plus_low_rank() -> None:
    A, _ = hippo.legs(8)
    values, vectors = hippo.legs_normal(8)
    p = (torch.arange(8, dtype=torch.float64) + 0.5).sqrt()
    back = vectors @ torch.diag(values) @ vectors.mH - torch.outer(p, p)
    torch.testing.assert_close(back.real, A)
    assert back.imag.abs().max() < 1e-12 and (values.imag[:4] < 0).all()


def test_discretisations() -> None:
    A, B = hippo.legt(SIZE, 50.0)
    fine, drive = torch.eye(SIZE, dtype=torch.float64), torch.zeros(SIZE, dtype=torch.float64)
    for _ in range(4000):  # many small steps of Euler: the definition
        fine, drive = fine + A @ fine / 4000, drive + (A @ drive + B) / 4000
    exact = hippo.discretize(A, B)
    for got, want in zip(exact, (fine, drive), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)
    for method, tolerance in (("bilinear", 5e-3), ("euler", 0.1)):
        for got, want in zip(hippo.discretize(A, B, method=method), exact, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=tolerance)
    with pytest.raises(InputError, match="zoh"):
        hippo.discretize(A, B, method="zho")
