"""The ops as operators of PyTorch: opcheck, torch.compile, activation checkpointing, autocast."""

from __future__ import annotations

import contextlib
import importlib

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

from ritornello import ops
from ritornello.errors import BackendError, InputError
from ritornello.kernels.native import _library
from ritornello.kernels.registry import backend, explain
from ritornello.testing.draw import Draw
from ritornello.testing.op_cases import OF_ROWS, case, op_names
from ritornello.testing.op_check import run_op
from ritornello.typing import Tensor


def positional(op: str) -> tuple:
    """The arguments of a small call in the order of the operator's schema, with a leaf for each tensor."""
    call = {}

    def catch(*arguments):
        call["arguments"] = arguments
        raise StopIteration

    module = importlib.import_module(f"ritornello.ops.{op}")
    kept, module._op = module._op, catch
    try:
        with contextlib.suppress(StopIteration):
            getattr(module, op)(**case(op, "plain", torch.float32).arguments)
    finally:
        module._op = kept
    return tuple(a.detach().requires_grad_() if isinstance(a, Tensor) else a for a in call["arguments"])


@pytest.mark.parametrize("op", op_names())
def test_opcheck(op):
    """Schema, fake kernel and autograd registration are what PyTorch wants of an operator."""
    operator = getattr(torch.ops.ritornello, op).default
    torch.library.opcheck(operator, (*positional(op), "torch", True), test_utils=("test_schema", "test_faketensor"))


def leaves() -> tuple[Tensor, ...]:
    draw = Draw("leaves", torch.float32, "cpu")
    q, k, v = draw.normal(2, 70, 2, 8), draw.unit(2, 70, 2, 8), draw.normal(2, 70, 2, 8)
    beta, log_decay = draw.uniform(0, 2, 2, 70, 2), draw.log_decay("mild", 2, 70, 2)
    return tuple(x.requires_grad_() for x in (q, k, v, beta, log_decay))


def loss_and_gradients(call):
    inputs = leaves()
    loss = call(*inputs)
    return loss.detach(), *torch.autograd.grad(loss, inputs)


def delta(*inputs: Tensor) -> Tensor:
    output, last = ops.delta_rule(*inputs)
    return output.square().sum() + last.sum()


def assert_same(got, want, **limits):
    for left, right in zip(got, want, strict=True):
        torch.testing.assert_close(left, right, **limits)


@pytest.mark.parametrize("name", ("torch", "reference"))
def test_compile_fullgraph(name):
    """One graph, the same numbers; the backend chosen when the graph was made is kept for its backward pass."""
    with backend(name):
        want = loss_and_gradients(delta)
        compiled = torch.compile(delta, fullgraph=True, backend="aot_eager")
        assert_same(loss_and_gradients(compiled), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ends", ([0, 10**9], [0, 5, 3], [1, 4]))
def test_a_compiled_graph_refuses_bounds_that_are_not_its_memory(ends):
    """Only when it runs are their numbers known; in C they would be addresses."""
    x = torch.rand(1, 8, 4)

    def scan(bounds):
        return ops.diagonal_scan(x, x, cu_seqlens=bounds)[0]

    compiled = torch.compile(scan, fullgraph=True, backend="eager", dynamic=True)
    torch.testing.assert_close(compiled(torch.tensor([0, 3, 8])), scan(torch.tensor([0, 3, 8])))
    with pytest.raises(InputError, match="`cu_seqlens` of diagonal_scan is"):
        compiled(torch.tensor(ends))


def test_checkpoint_keeps_the_backend():
    """A recomputation in the backward pass gives the same numbers, and so does a forward pass under another default."""
    with backend("torch"):
        want = loss_and_gradients(delta)
    with backend("torch"):
        got = loss_and_gradients(lambda *inputs: checkpoint(delta, *inputs, use_reentrant=False))
    assert_same(got, want, rtol=0, atol=0)


def test_backward_keeps_the_backend_of_the_forward():
    with backend("torch"):
        inputs = leaves()
        loss = delta(*inputs)
    with backend("reference"):
        got = torch.autograd.grad(loss, inputs)
    with backend("torch"):
        want = loss_and_gradients(delta)[1:]
    assert_same(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("op", op_names())
def test_transforms(op):
    """torch.func and forward derivatives: what autograd gives, and no tangent is lost without a word."""
    arguments = case(op, "one step" if op in OF_ROWS else "odd sizes").arguments
    name, x = next((n, t) for n, t in arguments.items() if isinstance(t, Tensor))
    x, direction = x.detach(), torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)

    def output(x):
        result = getattr(ops, op)(**{**arguments, name: x})
        return result[0] if isinstance(result, tuple) else result

    def loss(x):
        return output(x).abs().square().sum()

    leaf = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(leaf), leaf)
    slope = (want.conj() * direction).sum().real
    two = torch.stack([x, x])
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(loss(forward_ad.make_dual(x, direction))).tangent
    assert_same(
        [
            torch.func.grad(loss)(x),
            torch.vmap(torch.func.grad(loss))(two)[1],
            torch.func.grad(lambda x: torch.vmap(output)(x)[1].abs().square().sum())(two)[1],
            torch.func.jvp(loss, (x,), (direction,))[1],
            dual,
        ],
        [want, want, want, slope, slope],
        rtol=1e-8,
        atol=1e-8,
    )


@pytest.mark.parametrize("op", op_names())
def test_autocast_leaves_the_numbers(op):
    """Under autocast the kernel computes in the dtypes it was given: the same numbers as without."""
    one = case(op, "plain", torch.float32)
    want, want_grads, _ = run_op(one, "torch")
    with torch.autocast("cpu", torch.bfloat16):
        got, got_grads, _ = run_op(one, "torch")
    assert_same(got.values(), want.values(), rtol=0, atol=0)
    assert_same(got_grads.values(), want_grads.values(), rtol=0, atol=0)


def test_mixed_dtypes_of_autocast():
    """bf16 queries beside float32 keys, as autocast leaves them, are brought together; gates may stay in float32."""
    q, k, v, beta, log_decay = (x.detach() for x in leaves())
    with backend("torch"):
        output, last = ops.delta_rule(q.bfloat16(), k.bfloat16(), v, beta, log_decay.bfloat16())
    assert output.dtype == torch.float32 and last.dtype == torch.float32


def test_explain_names_the_backend():
    with backend("torch"), explain() as log:
        ops.delta_rule(*leaves())
    assert [(r.op, r.backend) for r in log] == [("delta_rule", "torch")]


def test_no_gradient_is_no_trace():
    """Without a gradient in sight nothing is kept for a backward pass."""
    draw = Draw("trace", torch.float32, "cpu")
    a, b, state = draw.uniform(0, 1, 1, 8, 3), draw.normal(1, 8, 3), draw.normal(1, 3)
    operator = torch.ops.ritornello.diagonal_scan
    assert operator(a, b, state, None, "torch", False)[-1].numel() == 0
    assert operator(a, b, state, None, "torch", True)[-1].numel() == 8 * 3 * 4


@pytest.mark.parametrize("name", ["native", "torch"])
def test_a_second_derivative_of_a_kernel_is_refused_not_wrong(name):
    """The reference backend has one; a penalty on a kernel's gradient would else be dropped without a word."""
    q = torch.randn(1, 5, 2, 4, requires_grad=True)
    if name == "native" and not _library.available():
        pytest.skip("the native library is not built")
    with backend(name):
        (grad,) = torch.autograd.grad(ops.linear_attention(q, q, q)[0].square().sum(), q, create_graph=True)
        with pytest.raises(BackendError, match="A second derivative of linear_attention"):
            grad.square().sum().backward()
        # Of a gradient that is a constant, and beside a path that has a second derivative.
        loss = ops.linear_attention(q, q, q)[0].sum() + q.square().sum()
        (grad,) = torch.autograd.grad(loss, q, create_graph=True)
        with pytest.raises(BackendError, match="A second derivative of linear_attention"):
            torch.autograd.grad(grad.square().sum(), q)
    with backend("reference"):
        (grad,) = torch.autograd.grad(ops.linear_attention(q, q, q)[0].square().sum(), q, create_graph=True)
        grad.square().sum().backward()
