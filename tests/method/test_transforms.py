"""torch.func, checkpoints and weights that change: the numbers of a plain call, or a sentence, and never others."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import checkpoint

import ritornello as rt
from ritornello import cells, layers
from ritornello.method import _block


class Mixing(rt.Cell):
    state_shape = (6,)

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-0.5, 0.5, 6))

    def step(self, u, h):
        return torch.tanh(u + self.weight * h)


class Wrapped(torch.nn.Module):
    def __init__(self, cell, method):
        super().__init__()
        self.cell, self.method = cell, method

    def forward(self, x):
        return rt.run(self.cell, x, None, self.method).y


METHODS = [rt.Sequential(), rt.Newton(), rt.Compiled(), rt.Auto()]


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    monkeypatch.setattr(_block, "BACKEND", "eager")


def input_of(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_gradients_of_a_functional_call_are_those_of_its_weights(method) -> None:
    """The backward pass comes when the module has its own weights back."""
    x = input_of(2, 70, 6)

    def gradient(method):
        weights = {"cell.weight": torch.linspace(-1, 1.5, 6, requires_grad=True)}
        y = functional_call(Wrapped(Mixing(), method), weights, (x,))
        return torch.autograd.grad(y.square().sum(), list(weights.values()))[0]

    torch.testing.assert_close(gradient(method), gradient(rt.Sequential()), rtol=1e-4, atol=1e-4)


def test_gradients_of_a_functional_call_of_an_equation() -> None:
    torch.manual_seed(0)
    layer, x = layers.build("implicit_ssm", 6), input_of(1, 5, 6)
    weights = {n: (p * 1.3).detach().requires_grad_() for n, p in layer.named_parameters()}
    found = torch.autograd.grad(functional_call(layer, weights, (x,))[0].square().sum(), list(weights.values()))
    layer.load_state_dict(weights)
    want = torch.autograd.grad(layer(x)[0].square().sum(), list(layer.parameters()))
    for name, a, b in zip(weights, found, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_weights_written_to_before_the_backward_pass_are_told() -> None:
    cell, x = Mixing(), input_of(2, 70, 6)
    loss = rt.run(cell, x, method=rt.Newton()).y.sum()
    with torch.no_grad():
        cell.weight += 1
    with pytest.raises(
        rt.InputError, match=r"`weight` of Mixing was changed in place after the forward pass.*backward"
    ):
        loss.backward()


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_checkpoints(method, reentrant) -> None:
    def gradients(run):
        cell, x = Mixing(), input_of(2, 70, 6).requires_grad_()
        run(Wrapped(cell, method), x).square().sum().backward()
        return x.grad, cell.weight.grad

    found = gradients(lambda module, x: checkpoint(module, x, use_reentrant=reentrant))
    torch.testing.assert_close(found, gradients(lambda module, x: module(x)))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_transforms_of_torch_func(method) -> None:
    cell, x, many = Mixing(), input_of(2, 70, 6), input_of(3, 2, 70, 6)
    run, slow = Wrapped(cell, method), Wrapped(cell, rt.Sequential())
    weights = {"cell.weight": cell.weight.detach()}

    def loss(module):
        return lambda w, x: functional_call(module, w, (x,)).square().sum()

    calls = [
        lambda m: grad(loss(m))(weights, x)["cell.weight"],
        lambda m: vmap(m)(many),
        lambda m: vmap(grad(loss(m)), (None, 0))(weights, many)["cell.weight"],
        lambda m: jvp(m, (x,), (torch.ones_like(x),))[1],
    ]
    for call in calls:
        if isinstance(method, rt.Newton | rt.Compiled):
            with pytest.raises(
                rt.BackendError, match=r"torch.func's transforms.*These can: Auto\(\), Sequential\(\)\."
            ):
                call(run)
        else:
            torch.testing.assert_close(call(run), call(slow))


def test_auto_goes_by_steps_under_transforms(monkeypatch) -> None:
    """Whatever would be the fastest."""
    monkeypatch.setattr("ritornello.method.cost.estimates", lambda *_: {"Newton": 0.0, "Sequential": 1.0})
    cell, x = Mixing(), input_of(1, 100, 6)
    assert rt.run(cell, x).stats["method"] == "Newton()"
    assert vmap(lambda x: rt.run(cell, x).y)(x.unsqueeze(0)).shape == (1, 1, 100, 6)


def test_the_gradient_of_an_equation_is_refused_where_it_may_be_differentiated_again() -> None:
    layer, x = layers.build("implicit_ssm", 6), input_of(1, 3, 6)
    with pytest.raises(
        rt.BackendError, match=r"no derivative of its own, for which torch.func's transforms ask.*with backward\(\)"
    ):
        grad(lambda x: layer(x)[0].sum())(x)


@pytest.mark.parametrize("name", ["attention", "lstm", "gla"])
def test_vmap_over_a_layer(name) -> None:
    torch.manual_seed(0)
    layer, many = layers.build(name, 8), input_of(3, 2, 9, 8)
    with torch.no_grad():
        torch.testing.assert_close(vmap(lambda x: layer(x)[0])(many), torch.stack([layer(x)[0] for x in many]))


@pytest.mark.parametrize("name", ["moe", "log_linear"])
def test_vmap_over_what_looks_at_numbers_is_refused(name) -> None:
    layer = layers.build(name, 8)
    with pytest.raises(rt.BackendError, match=f"{name} does one thing or another by numbers.*into the batch, or loop"):
        vmap(lambda x: layer(x)[0])(input_of(3, 2, 9, 8))


def test_cells_of_other_shapes_take_it_too() -> None:
    cell, x = cells.LSTMCell(4, 4), input_of(2, 12, 4)
    weights = {f"cell.{n}": p.detach() for n, p in cell.named_parameters()}
    found = grad(lambda w: functional_call(Wrapped(cell, None), w, (x,)).square().sum())(weights)
    want = torch.autograd.grad(rt.run(cell, x).y.square().sum(), list(cell.parameters()))
    torch.testing.assert_close(tuple(found.values()), want, rtol=1e-4, atol=1e-5)
