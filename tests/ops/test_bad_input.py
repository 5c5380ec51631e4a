"""What is no tensor, or lies elsewhere, is refused with a sentence before a kernel reads it; edges of shapes."""

from __future__ import annotations

import inspect
from contextlib import nullcontext

import pytest
import torch

from ritornello import ops
from ritornello.errors import InputError
from ritornello.kernels.registry import backend
from ritornello.testing.op_cases import OF_ROWS, case, op_names

ALONG_TIME = [op for op in op_names() if op not in OF_ROWS]


def call(op, **other):
    arguments = {**case(op, "plain", torch.float32).arguments, **other}
    return getattr(ops, op)(**arguments)


def given(op):
    return {n: t for n, t in case(op, "plain", torch.float32).arguments.items() if isinstance(t, torch.Tensor)}


@pytest.mark.parametrize("op", op_names())
def test_what_is_no_tensor_is_named(op):
    required = [n for n, p in inspect.signature(getattr(ops, op)).parameters.items() if p.default is p.empty]
    for name in required:
        for value in (None, [1.0], given(op)[name].numpy())[name == "log_decay" :]:  # None is no decay
            with pytest.raises(InputError, match=f"`{name}` of {op} is .*wanted a torch.Tensor"):
                call(op, **{name: value})


@pytest.mark.parametrize("op", ALONG_TIME)
def test_a_state_or_a_packing_of_the_wrong_type_is_named(op):
    for state in ("x", [torch.zeros(2)] * 7):
        with pytest.raises(InputError, match=r"state.* of .* is .*wanted"):
            call(op, state=state)
    with pytest.raises(InputError, match=r"`cu_seqlens` of .* is a list"):
        call(op, cu_seqlens=[0, 3])


@pytest.mark.parametrize("op", op_names())
def test_a_tensor_on_another_device_is_refused(op):
    """Its address is no memory of ours: in C it would end the process."""
    for name, tensor in list(given(op).items())[1:]:
        with pytest.raises(InputError, match=f"of {op} is on .*one device"):
            call(op, **{name: tensor.to("meta")})


@pytest.mark.parametrize("op", op_names())
def test_tensors_without_memory_tell_the_shapes(op):
    def there(value):
        if isinstance(value, tuple):
            return tuple(map(there, value))
        return value.to("meta") if isinstance(value, torch.Tensor) else value

    arguments = case(op, "plain", torch.float32).arguments
    want, got = (getattr(ops, op)(**{n: f(v) for n, v in arguments.items()}) for f in (lambda x: x, there))
    want, got = (x[0] if isinstance(x, tuple) else x for x in (want, got))
    assert got.is_meta and (got.shape, got.dtype) == (want.shape, want.dtype)


@pytest.mark.parametrize("name", ("reference", "torch", "native"))
def test_a_scan_of_single_numbers(name):
    torch.manual_seed(0)
    a, b, state = torch.rand(2, 9).double(), torch.randn(2, 9).double(), torch.randn(2).double()
    for cu in (None, torch.tensor([0, 2, 2, 7])):
        inputs = (a, b, state) if cu is None else (a[:1], b[:1], torch.randn(3).double())
        inputs = [t.clone().requires_grad_() for t in inputs]
        with backend(name):
            h, last = ops.diagonal_scan(*inputs, cu_seqlens=cu)
            wide, wide_last = ops.diagonal_scan(*(t.unsqueeze(-1) for t in inputs), cu_seqlens=cu)
        torch.testing.assert_close((h, last), (wide.squeeze(-1), wide_last.squeeze(-1)))
        grads = [torch.autograd.grad(h.square().sum() + last.sum(), inputs, retain_graph=True)]
        grads += [torch.autograd.grad(wide.square().sum() + wide_last.sum(), inputs)]
        torch.testing.assert_close(*grads)


@pytest.mark.parametrize("name", ("reference", "torch"))
@pytest.mark.parametrize("op", ALONG_TIME)
def test_gradients_where_there_is_nothing_to_do(op, name):
    """T = 0 on every backend: the output has a gradient to give, of nothing; and the state passes its own through."""
    arguments = {
        n: v.requires_grad_() if isinstance(v, torch.Tensor) else v for n, v in case(op, "no steps").arguments.items()
    }
    with backend(name):
        y, last = getattr(ops, op)(**arguments)
    assert y.shape[1] == 0
    y.sum().backward(retain_graph=True)
    state = arguments["state"]
    if isinstance(state, torch.Tensor):
        (grad,) = torch.autograd.grad(last.sum(), state)
        assert (grad == 1).all()


@pytest.mark.parametrize("name", ("reference", "torch", "native"))
@pytest.mark.parametrize("op", ("linear_attention", "delta_rule", "dplr", "mlstm"))
def test_one_wider_tensor_widens_the_state_as_well(op, name):
    """A state of fewer bytes than the kernel was told of is written past its end."""
    arguments = case(op, "plain", torch.float32).arguments
    doubles = {n: v.double() if isinstance(v, torch.Tensor) else v for n, v in arguments.items()}
    for state in (None, arguments["state"]):
        with backend(name):
            got = getattr(ops, op)(**{**arguments, "q": doubles["q"], "state": state})
            want = getattr(ops, op)(**{**doubles, "state": state})
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)  # assert_close compares the dtypes


@pytest.mark.parametrize("name", ("reference", "torch", "native"))
def test_the_stabiliser_that_mlstm_starts_from_is_not_differentiated(name):
    arguments = case("mlstm", "plain", torch.float64).arguments
    C, n, m = (s.clone().requires_grad_() for s in arguments["state"])
    with backend(name):
        o, (last_C, last_n, _) = ops.mlstm(**{**arguments, "state": (C, n, m)})
    found = torch.autograd.grad(o.sum() + last_C.sum() + last_n.sum(), (C, n, m), allow_unused=True)
    assert found[0].any() and found[1].any() and (found[2] is None or not found[2].any())


def test_sizes_of_which_there_is_no_op():
    q, v = torch.ones(1, 3, 0, 4), torch.ones(1, 3, 2, 4)
    with pytest.raises(InputError, match="2 value heads and 0 query and key heads"):
        ops.linear_attention(q, q, v)
    with pytest.raises(InputError, match="at least one tap"):
        ops.causal_conv(v[:, :, 0], torch.ones(4, 0))
    with pytest.raises(InputError, match=r"`peephole` of para_lstm.*P=2"):  # of any other, C would read beyond it
        ops.para_lstm(torch.ones(1, 2, 3, 4), torch.ones(3, 4), torch.ones(1, 4))


@pytest.mark.parametrize("name", (None, "reference", "torch"))
def test_sizes_of_nothing(name):
    """Values of no numbers, and states of none: no kernel divides by them, or reads what is not there."""
    x, nothing = torch.ones(1, 3, 4), torch.ones(1, 3, 0)
    with nullcontext() if name is None else backend(name):
        o, S = ops.linear_attention(x.unsqueeze(2), x.unsqueeze(2), nothing.unsqueeze(2))
        assert o.shape == (1, 3, 1, 0) and S.shape == (1, 1, 4, 0)
        y, (m, u, w) = ops.softmax_scan(x, x.unsqueeze(-1)[..., :0])
        assert y.shape == (1, 3, 4, 0) and u.shape == (1, 4, 0)
        assert (m == 1).all() and (w == 3).all()
        y, h = ops.selective_scan(x, x, torch.ones(4, 0), nothing, nothing, 2 * torch.ones(4))
        assert (y == 2).all() and h.shape == (1, 4, 0)


def test_a_complex_state_of_a_real_scan_is_refused():
    """Its imaginary part would be dropped. The other way round nothing is lost."""
    real, imaginary = torch.rand(1, 3, 2), torch.full((1, 2), 1j)
    with pytest.raises(InputError, match=r"`state` of diagonal_scan is torch.complex64.*imaginary"):
        ops.diagonal_scan(real, real, imaginary)
    assert ops.diagonal_scan(real, real + 0j, imaginary)[1].imag.all()
    assert ops.diagonal_scan(real + 0j, real, real[:, 0])[1].is_complex()
