"""Every backend of every op agrees with the reference: outputs, final states and all gradients, within one table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ritornello.errors import BackendError
from ritornello.kernels import registry
from ritornello.kernels.native import _library
from ritornello.testing import op_check
from ritornello.testing.op_cases import case, cases, op_names
from ritornello.testing.op_check import check_op, run_op

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


@pytest.mark.skipif(not _library.available(), reason="the native library is not built")
@pytest.mark.parametrize("op", [op for op in op_names() if (op, "native") in registry._kernels])
def test_a_gradient_asked_for_alone_is_that_of_all(op):
    """A kernel may leave out what nobody asked for, and nothing else."""
    for name in cases(op):
        if (op, "native", name) in REFUSED:
            continue
        whole = case(op, name, torch.float32)
        _, every, shift = run_op(whole, "native")
        for argument in {label.split("[")[0] for label in every}:
            _, alone, _ = run_op(replace(whole, needs=(argument,)), "native", shift)
            for label, grad in alone.items():
                assert torch.equal(grad, every[label]), f"{op} {name!r}: {label}"
