"""The comparison of a backend with the reference.

check_op("delta_rule", "native")            # every case: outputs, final states and all gradients
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from ritornello import ops
from ritornello.kernels.registry import backend as using
from ritornello.testing.op_cases import OpCase, case, cases, over_tensors
from ritornello.testing.tolerance import excess, tolerance
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["check_op", "parted", "run_op"]


def check_op(
    op: str, backend: str, name: str | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> None:
    """Compare a backend with the reference in float64: outputs, final states, all gradients; one case, or all of them.

    Raises:
        AssertionError: the op, case, result and error that is beyond the tolerance.
        BackendError: the backend refuses the case.
    """
    for one in [name] if name is not None else cases(op):
        tried = case(op, one, dtype, device)
        exact = {key: over_tensors(_double, value) for key, value in tried.arguments.items()}
        want, want_grads, m = run_op(replace(tried, arguments=exact), "reference")
        got, got_grads, _ = run_op(tried, backend, m)
        where = f"{op} {one!r} on {backend} in {dtype}"
        _compare(where, got, want, tolerance(op, dtype))
        _compare(f"{where}: gradient of", got_grads, want_grads, tolerance(op, dtype))


def _compare(where: str, got: dict[str, Tensor], want: dict[str, Tensor], limit: float) -> None:
    for key, value in want.items():
        if got[key].shape != value.shape:
            raise AssertionError(f"{where} {key} has shape {tuple(got[key].shape)}; wanted {tuple(value.shape)}")
        error = excess(got[key], value)
        if not error <= limit:
            raise AssertionError(f"{where} {key} is off by {error:.2e}; the tolerance is {limit:.0e}")


def run_op(
    case: OpCase, backend: str, shift: Tensor | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor | None]:
    """Run a case and its gradients on a backend.

    Returns the results by name, the gradients by name, and the stabiliser m of the final state, where there is one.
    A state defined up to its stabiliser is brought to `shift`, the other backend's, before it is compared or read.
    """
    arguments = {name: over_tensors(_leaf, value) for name, value in case.arguments.items()}
    wanted = {}
    for name, label, place, value in _flat(arguments):
        if _is_differentiable(case.op, name, place, value) and (case.needs is None or name in case.needs):
            wanted[label] = value.requires_grad_()
    with using(backend):
        output, last = parted(getattr(ops, case.op)(**arguments))
    _check_dtypes(case, output, last, next(iter(arguments.values())).dtype)
    last, stabiliser = _shifted(case.op, last, shift)
    results = {"output": output} | {f"final state {i}": t for i, t in enumerate(last)}
    read = {"both": list(results), "output": ["output"], "state": list(results)[1:]}[case.loss]
    read = [name for name in read if results[name].requires_grad]  # no time steps: the output hangs on nothing
    cotangents = [_cotangent(case, name, results[name]) for name in read]
    grads = [None] * len(wanted)
    if read:
        grads = torch.autograd.grad(
            [results[name] for name in read], list(wanted.values()), cotangents, allow_unused=True
        )
    gradients = {n: torch.zeros_like(x) if g is None else g for (n, x), g in zip(wanted.items(), grads, strict=True)}
    return results, gradients, stabiliser


def parted(result: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """What an op returned, as its output and the tensors of its final state: none where it returns the output alone."""
    output, last = result if isinstance(result, tuple) else (result, ())
    return output, last if isinstance(last, tuple) else (last,)


def _leaf(x: Tensor) -> Tensor:
    return x.detach()  # shares its strides, and is its own leaf


def _double(x: Tensor) -> Tensor:
    return x.to(torch.complex128) if x.is_complex() else x.double() if x.is_floating_point() else x


def _flat(arguments: dict[str, Any]) -> Iterator[tuple[str, str, int, Any]]:
    for name, value in arguments.items():
        if isinstance(value, tuple):
            yield from ((name, f"{name}[{place}]", place, part) for place, part in enumerate(value))
        else:
            yield name, name, 0, value


_STABILISER = {"mlstm": 2, "softmax_scan": 0}  # the place of m in the state: it is not differentiated


def _is_differentiable(op: str, name: str, place: int, value: Any) -> bool:
    if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
        return False
    return not (name == "state" and place == _STABILISER.get(op))


def _check_dtypes(case: OpCase, output: Tensor, last: tuple[Tensor, ...], lead: torch.dtype) -> None:
    """Outputs have the input's dtype, states the accumulation dtype; the convolution's window is a cache of inputs."""
    dtype = case.arguments["values"].dtype if case.op == "softmax_scan" else lead
    wide = dtype if case.op == "causal_conv" else accumulation_dtype(dtype)
    for name, tensor, wanted in [("output", output, dtype), *(("final state", t, wide) for t in last)]:
        if tensor.dtype != wanted:
            raise AssertionError(f"{case.op} {case.name!r}: the {name} is in {tensor.dtype}; wanted {wanted}")


def _shifted(op: str, last: tuple[Tensor, ...], shift: Tensor | None) -> tuple[tuple[Tensor, ...], Tensor | None]:
    """The differentiable parts of a final state, brought to the stabiliser `shift`; and its own stabiliser."""
    if op not in _STABILISER:
        return last, None
    place = _STABILISER[op]
    m, parts = last[place].detach(), last[:place] + last[place + 1 :]
    if shift is None:
        return parts, m
    factor = torch.where(m == shift, 1.0, (m.double() - shift.double()).exp())  # −∞ − (−∞): an empty state
    return tuple(p.double() * factor.reshape(factor.shape + (1,) * (p.dim() - m.dim())) for p in parts), m


def _cotangent(case: OpCase, name: str, like: Tensor) -> Tensor:
    """The gradient of the loss by one result: the same numbers for every backend, in the dtype that is tested."""
    if case.expanded:
        return torch.full((), 0.5, dtype=like.dtype, device=like.device).expand(like.shape)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{case.op} {case.name} {name}".encode()))
    drawn = torch.randn(like.shape, generator=generator, dtype=torch.complex128 if like.is_complex() else torch.float64)
    return drawn.to(case.dtype).to(like.device, like.dtype)
