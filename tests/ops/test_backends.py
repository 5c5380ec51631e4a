"""Every backend of every op agrees with the reference: outputs, final states and all gradients, within one table."""

from __future__ import annotations

import pytest
import torch

from ritornello.errors import BackendError
from ritornello.kernels import registry
from ritornello.testing import op_check
from ritornello.testing.op_cases import cases, op_names
from ritornello.testing.op_check import check_op

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
BACKENDS = [b for b in registry.BACKENDS if b != "reference"]
REGISTERED = [
    (op, b, name) for op in op_names() for b in BACKENDS if (op, b) in registry._kernels for name in cases(op)
]


REFUSED = {("block_scan", "native", "one"), ("block_scan", "native", "five")}
"""The cases beyond a kernel's limits: what is refused besides them has a kernel that runs less than it says."""


def check(op: str, backend: str, name: str, dtype: torch.dtype) -> None:
    reason = registry.lookup(op, backend).never("cpu", dtype)
    if reason is not None:
        pytest.skip(reason)
    if (op, backend, name) in REFUSED:
        with pytest.raises(BackendError, match="cannot run this call"):
            check_op(op, backend, name, dtype)
    else:
        check_op(op, backend, name, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(("op", "backend", "name"), REGISTERED)
def test_agrees_with_reference(op, backend, name, dtype):
    check(op, backend, name, dtype)


@pytest.mark.parametrize("dtype", (torch.complex64, torch.complex128), ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("name", cases("diagonal_scan"))
@pytest.mark.parametrize("backend", [b for b in BACKENDS if ("diagonal_scan", b) in registry._kernels])
def test_complex_diagonal_scan_agrees_with_reference(backend, name, dtype):
    check("diagonal_scan", backend, name, dtype)


@pytest.mark.parametrize("op", op_names())
def test_reference_is_exact_to_float32(op):
    """The comparison holds for the reference in float32: the table leaves room for rounding, and no case is broken."""
    check_op(op, "reference", dtype=torch.float32)


@pytest.mark.parametrize("op", op_names())
def test_a_wrong_gradient_is_seen(op, monkeypatch):
    """A backend whose last input's gradient is 1 % off fails: the comparison is not blind."""
    run, calls = op_check.run_op, []

    def off(*arguments):
        results, gradients, m = run(*arguments)
        calls.append(gradients)
        if len(calls) == 2:
            gradients[list(gradients)[-1]] *= 1.01
        return results, gradients, m

    monkeypatch.setattr(op_check, "run_op", off)
    with pytest.raises(AssertionError, match="gradient"):
        check_op(op, "reference", "plain", torch.float32)
