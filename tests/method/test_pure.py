"""A step that is not a function of its input and the state is refused, with a sentence that says what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import ritornello as rt


class Base(rt.Cell):
    state_shape = (3,)

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("seen", torch.zeros(3))


class InPlace(Base):
    def step(self, u, h):
        h += u
        return torch.tanh(h)


class InPlaceInput(Base):
    def step(self, u, h):
        return torch.tanh(u.mul_(2) + h)


class Wider(Base):
    def step(self, u, h):
        return torch.cat([h, u], -1)


class Rounded(Base):
    def step(self, u, h):
        return (h + u).half()


class Nested(Base):
    def step(self, u, h):
        return h, u


class Broken(Base):
    def step(self, u, h):
        return torch.log(h - 1) + u


class Random(Base):
    def step(self, u, h):
        return nn.functional.dropout(torch.tanh(u + h), 0.1)


class Counting(Base):
    def step(self, u, h):
        self.calls += 1
        return torch.tanh(u + h) if self.calls < 100 else h


class Remembering(Base):
    def step(self, u, h):
        self.seen += u.mean(0)
        return torch.tanh(u + h + self.seen)


class Silent(Base):
    def step(self, u, h):
        h = h + u  # and no return


class OfZero(Base):
    """0 · ½ is 0: nothing is seen of it in the first state."""

    def step(self, u, h):
        h.view(-1).mul_(0.5)
        return torch.tanh(u + h)


class OneRow(Base):
    def step(self, u, h):
        return torch.tanh(u + h).mean(0, keepdim=True)


class Listed(Base):
    def initial_state(self, batch, like):
        return like.new_zeros(batch, 3), like.new_zeros(batch, 3)

    def step(self, u, h):
        return [torch.tanh(u + h[0]), h[1]]


class Swapped(Base):
    def initial_state(self, batch, like):
        return {"a": like.new_zeros(batch, 3), "b": like.new_zeros(batch, 3)}

    def step(self, u, h):
        return {"b": h["b"], "a": torch.tanh(u + h["a"])}


class RandomLater(Base):
    """Not in the first state."""

    def step(self, u, h):
        return torch.tanh(u + h + (torch.rand_like(h) if h.any() else 0))


class CountingInATable(Base):
    def __init__(self):
        super().__init__()
        self.table = {"calls": 0}

    def step(self, u, h):
        self.table["calls"] += 1
        return torch.tanh(u + h) if self.table["calls"] < 100 else h


OUTSIDE = {"calls": 0}


class CountingOutside(Base):
    def step(self, u, h):
        OUTSIDE["calls"] += 1
        return torch.tanh(u + h) if OUTSIDE["calls"] < 1000 else h


class Learning(Base):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def step(self, u, h):
        with torch.no_grad():
            self.weight += 1
        return torch.where(self.weight < 100, torch.tanh(u + h), h)


class Mixing(Base):
    def step(self, u, h):
        return torch.tanh(u + h - h.mean(0) + u.mean(0))


REFUSED = {
    InPlace: "changes its arguments in place.*h = h [+] x",
    InPlaceInput: "changes its arguments in place",
    Wider: r"state of \(3,\) float32, and returned \(6,\) float32.*initial_state",
    Rounded: r"returned \(3,\) float16.*to\(h.dtype\)",
    Nested: "Return the same nest",
    Silent: r"state of \(3,\) float32, and returned None",
    Broken: "returned NaN.*clamp",
    Random: "draws random numbers.*drive",
    Counting: "keeps something from call to call.*drive",
    Remembering: "keeps something from call to call",
    OfZero: "changes its arguments in place",
    OneRow: r"\(4, 3\) float32, and returned \(1, 3\) float32 \(with the batch of 4\)",
    Listed: r"given a state of \(\(3,\) float32, .*returned \[\(3,\) float32, ",
    Swapped: "given a state of {'a': .*returned {'b': .*in the same order",
    RandomLater: "draws random numbers",
    CountingInATable: "keeps something from call to call",
    CountingOutside: "keeps something from call to call",
    Learning: "keeps something from call to call",
    Mixing: "own input and state",
}


@pytest.mark.parametrize("method", [rt.Sequential(), rt.Newton()], ids=str)
@pytest.mark.parametrize(("cell", "sentence"), REFUSED.items(), ids=lambda v: getattr(v, "__name__", ""))
def test_refused(cell, sentence, method):
    x = torch.randn(2, 9, 3)
    with pytest.raises(rt.InputError, match=f"The step of {cell.__name__} .*{sentence}"):
        rt.run(cell(), x, method=method)


def test_nothing_of_the_check_is_left():
    """It draws nothing from the generator, changes no input, and is made once."""

    class Plain(Base):
        def step(self, u, h):
            seen.append(len(h))
            return torch.tanh(u + h)

    seen, cell, x = [], Plain(), torch.randn(2, 9, 3)
    before, kept = torch.get_rng_state(), x.clone()
    rt.run(cell, x, method=rt.Newton())
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(x, kept)
    first = len(seen)
    seen.clear()
    rt.run(cell, x, method=rt.Newton())
    assert len(seen) < first


def test_a_log_and_a_table_that_is_made_once_are_no_memory():
    class Kept(Base):
        def __init__(self):
            super().__init__()
            self.log, self.tables = [], {}

        def step(self, u, h):
            self.log.append(h)
            if h.dtype not in self.tables:
                self.tables[h.dtype] = torch.arange(3, dtype=h.dtype)
            return torch.tanh(u + h * self.tables[h.dtype])

    rt.run(Kept(), torch.randn(2, 9, 3), method=rt.Sequential())


class Plain(Base):
    def step(self, u, h):
        return torch.tanh(u + h * (1 + self.seen))


def test_a_cell_that_was_made_in_inference_mode():
    with torch.inference_mode():
        cell, x = Plain(), torch.randn(2, 70, 3)
        rt.run(cell, x)
    rt.run(cell, x.clone(), method=rt.Sequential())


def test_numbers_that_end_are_refused_with_their_time():
    class Root(Base):
        def step(self, u, h):
            return (0.5 * h + u).sqrt()

    x = torch.ones(2, 30, 3)
    x[1, 17] = -5
    with pytest.raises(rt.InputError, match=r"Root is not finite.*step 17 of sequence 1"):
        rt.run(Root(), x, method=rt.Newton())


class Product(rt.Cell):
    """What it returns has, under autocast, the dtype of its last product."""

    state_shape = (3,)

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(3))

    def step(self, u, h):
        return (h + u) @ self.weight


def test_autocast_is_not_taken_for_an_impure_step():
    x = torch.randn(2, 5, 3)
    want = rt.run(Product(), x).y
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(rt.run(Product(), x).y, want)
