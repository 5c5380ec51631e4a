"""What somebody writes on top of the library: a class that cannot work says so where it is made."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
import torch
from torch import nn

import ritornello as rt
from ritornello.layers import About, Layer, Leaf, Traits

X = torch.randn(2, 9, 3)


def of_layer(**methods: Any) -> type[Layer]:
    return type("Mine", (Layer,), {"kind": "mine", "traits": Traits(About("Mine", "none", "tests", "none")), **methods})


def of(base: type, **methods: Any) -> type:
    return of_layer(**methods) if base is Layer else type("Mine", (base,), {"state_shape": (3,), **methods})


OTHER_ARGUMENTS = [
    (rt.Cell, "step", lambda self, u: u, "step(self, u); wanted step(self, u, h)"),
    (rt.Cell, "step", lambda u, h: h, "step(u, h); wanted step(self, u, h)"),
    (rt.Cell, "step", lambda self, u, h, t: h, "step(self, u, h, t); wanted step(self, u, h)"),
    (rt.Cell, "step", lambda self, u, *, h: h, "step(self, u, *, h); wanted step(self, u, h)"),
    (rt.Cell, "step", staticmethod(lambda self, u, h: h), "step(self, u, h); wanted step(self, u, h)"),
    (rt.Cell, "drive", lambda self: None, "drive(self); wanted drive(self, x)"),
    (rt.Cell, "read", lambda self, h: h, "read(self, h); wanted read(self, u, h)"),
    (rt.Cell, "initial_state", lambda self, batch: 0, "(self, batch); wanted initial_state(self, batch, like)"),
    (rt.Cell, "fused", lambda self, u, h: (u, h), "fused(self, u, h); wanted fused(self, u, h, cu_seqlens=None)"),
    (rt.AffineCell, "transition", lambda self: None, "transition(self); wanted transition(self, u)"),
    (rt.AffineCell, "query", lambda self: None, "query(self); wanted query(self, u)"),
    (rt.AffineCell, "finish", lambda self, o: o, "finish(self, o); wanted finish(self, u, o)"),
    (rt.AffineCell, "drive", lambda self: None, "drive(self); wanted drive(self, x)"),
    (rt.ImplicitCell, "sweep", lambda self, u, y, h: (y, h), "(self, u, y, h); wanted sweep(self, u, y, h, sequence)"),
    (rt.ImplicitCell, "finish", lambda self, y: y, "finish(self, y); wanted finish(self, u, y)"),
    (Layer, "mix", lambda self, x, state: (x, state), "mix(self, x, state); wanted mix(self, x, state, call)"),
    (Layer, "leaves", lambda: {}, "leaves(); wanted leaves(self)"),
]


@pytest.mark.parametrize(("base", "name", "method", "told"), OTHER_ARGUMENTS)
def test_a_method_with_other_arguments(base: type, name: str, method: Any, told: str) -> None:
    with pytest.raises(rt.InputError) as caught:
        of(base, **{name: method})
    assert f"`{name}` of Mine is written as " in str(caught.value)
    assert f"{told}, as it is called. Give it these arguments." in str(caught.value)


def test_what_can_be_called_is_taken() -> None:
    """More arguments with defaults, any arguments, static methods, wrappers, and a `forward` of one's own."""

    def halved(step: Any) -> Any:
        return functools.wraps(step)(lambda self, u, h: step(self, u, h, 0.5))

    for step in (
        halved(lambda self, u, h, scale: torch.tanh(scale * h + u)),
        lambda self, u, h, scale=0.5: torch.tanh(scale * h + u),
        lambda *given: torch.tanh(given[1] + given[2]),
        staticmethod(lambda u, h: torch.tanh(h + u)),
        torch.enable_grad()(lambda self, u, h: torch.tanh(h + u)),
    ):
        assert rt.run(of(rt.Cell, step=step)(), X).y.shape == X.shape
    of_layer(forward=lambda self, x: x)


class Forgetful:
    """What an ``__init__`` does in place of ``super().__init__``."""

    def plain(self, width: int = 3) -> None:
        self.width = width

    def parameter(self, width: int = 3) -> None:
        self.weight = nn.Parameter(torch.zeros(width))

    def module(self, width: int = 3) -> None:
        self.proj = nn.Linear(width, width)

    def buffer(self, width: int = 3) -> None:
        self.register_buffer("seen", torch.zeros(width))  # type: ignore[attr-defined]


@pytest.mark.parametrize("does", ["plain", "parameter", "module", "buffer"])
@pytest.mark.parametrize("base", [rt.Cell, rt.AffineCell, rt.ImplicitCell, Layer])
def test_an_init_that_forgets_that_of_its_base(base: type, does: str) -> None:
    cls = of(base, __init__=getattr(Forgetful, does))
    call = "width" if base is Layer else ""
    sentence = (
        rf"`__init__` of Mine does not call super\(\).__init__ before .* begin with super\(\).__init__\({call}\)\."
    )
    with pytest.raises(rt.InputError, match=sentence):
        cls(3)


def test_an_init_of_its_own_stays_what_it_is() -> None:
    class Base(rt.Cell):
        state_shape = (3,)

        def __init__(self, width: int, *, scale: float = 1.0):
            self.scale = scale  # a number may come before
            super().__init__()
            self.proj = nn.Linear(width, width)

    class Late(Base):
        def __init__(self):
            self.before = nn.Module()

    class Foreign(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(torch.zeros(3))

    class Other(Base):
        def __init__(self, what: str):
            super().__init__(3)
            _ = Foreign() if what == "foreign" else self.nonesuch

    class Mistaken(Base):
        def __init__(self, width: Any):
            super().__init__(width.size)

    class First(rt.Cell):
        def __init__(self):
            self.width = 3

    class Then(First):
        def __init__(self):
            First.__init__(self)
            rt.Cell.__init__(self)

    Then().eval()
    assert str(inspect.signature(Base)) == "(width: 'int', *, scale: 'float' = 1.0)"
    assert Base(3, scale=0.5).scale == 0.5
    with pytest.raises(TypeError, match=r"Base.__init__\(\) missing 1 required"):
        Base()  # type: ignore[call-arg]
    with pytest.raises(rt.InputError, match="`__init__` of Late does not call"):
        Late()
    with pytest.raises(AttributeError, match="cannot assign parameters before Module"):  # of a module that is not ours
        Other("foreign")
    with pytest.raises(AttributeError, match="has no attribute 'nonesuch'"):
        Other("typo")
    with pytest.raises(AttributeError, match="'int' object has no attribute 'size'"):
        Mistaken(3)


# ------------------------------------------------------------------------------------------------- what `mix` returns

H = Leaf((3,))
RETURNED = {
    "the outputs alone": (lambda x, h: x, r"returned \(2, 9, 3\) float32; wanted the pair y, state"),
    "nothing": (lambda x, h: None, "returned None; wanted the pair"),
    "a tensor for a state": (lambda x, h: (x, h), r"returned \(\(2, 9, 3\) float32, \(2, 3\) float32\); wanted"),
    "a tuple for a state": (
        lambda x, h: (x, (h,)),
        r"\(\(2, 3\) float32,\)\); wanted .* state = {'h': \(2, 3\) float32}",
    ),
    "three": (lambda x, h: (x, {"h": h}, 0), r", 0\); wanted the pair"),
    "another name": (lambda x, h: (x, {"g": h}), r"{'g': \(2, 3\) float32}\); wanted"),
    "no state": (lambda x, h: (x, {}), r"{}\); wanted"),
    "another shape": (lambda x, h: (x, {"h": h[:, :2]}), r"{'h': \(2, 2\) float32}\); wanted"),
    "another dtype": (
        lambda x, h: (x, {"h": h.double()}),
        r"{'h': \(2, 3\) float64}\); wanted .* or let leaves\(\) say",
    ),
    "outputs of another shape": (lambda x, h: (x[..., :2], {"h": h}), r"\(\(2, 9, 2\) .* shape of x, \(2, 9, 3\)"),
}


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("returned", RETURNED)
def test_what_mix_returns(returned: str, direction: str) -> None:
    make, told = RETURNED[returned]
    layer = of_layer(leaves=lambda self: {"h": H}, mix=lambda self, x, state, call: make(x, state["h"]))(
        3, direction=direction
    )
    for _ in range(2):  # once it was refused, it is not taken either
        with pytest.raises(rt.InputError, match=rf"mix\(x, state, call\) of Mine .*{told}"):
            layer(X)


def test_mix_is_looked_at_once_for_each_layer() -> None:
    asked = []

    def leaves(self):
        asked.append(self)
        return {"h": H}

    cls = of_layer(leaves=leaves, mix=lambda self, x, state, call: (x, dict(state)))
    for layer in (cls(3), cls(3)):
        for times in (2, 1, 1):  # once for the initial state
            asked.clear()
            layer(X)
            assert asked == [layer] * times


@pytest.mark.parametrize("leaves", [[H], {"h": (3,)}, None], ids=str)
def test_leaves_that_are_none(leaves: Any) -> None:
    with pytest.raises(rt.InputError, match=r"leaves\(\) of Mine returned .*; wanted a Leaf .* Leaf\(\(64,\)\)"):
        of_layer(leaves=lambda self: leaves, mix=lambda self, x, state, call: (x, state))(3)(X)


@pytest.mark.parametrize("given", [(3,), ((3,), "float")], ids=str)
def test_a_leaf_that_describes_no_tensor(given: Any) -> None:
    with pytest.raises(
        rt.InputError, match=r"Leaf\(shape=.* describes no tensor .* Write it as Leaf\(\(64,\), 'sum'\)"
    ):
        Leaf(*given)
