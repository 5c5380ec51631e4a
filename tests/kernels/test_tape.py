"""A tape plays what it recorded, on other numbers, and refuses what it could not."""

from __future__ import annotations

import threading

import pytest
import torch

from ritornello import ops
from ritornello.kernels.tape import NotRecordable, Tape, recording


def recorded(function, *inputs):
    tape = Tape()
    with torch.no_grad(), tape.record():
        return tape, function(*inputs)


def check(function, *inputs) -> Tape:
    """That other numbers, written where the recorded ones lie, give what a call with them gives, bit for bit."""
    tape, out = recorded(function, *inputs)
    for _ in range(2):
        for t in inputs:
            t.copy_(torch.rand(t.shape) if t.is_floating_point() else torch.randint(3, t.shape))
        expected = function(*[t.clone() for t in inputs])
        tape.play()
        assert torch.equal(out, expected)
    return tape


def test_operators_views_and_constants() -> None:
    def function(x, w):
        y = (x @ w.t()).unflatten(-1, (2, 3)).transpose(1, 2)
        ramp = torch.arange(3.0).unsqueeze(-1)
        left, right = torch.cat([y, y.exp()], -1).chunk(2, -1)
        picked = y.new_zeros(4, 3, 2).add_(ramp)
        return torch.where(left > 0.5, left * 2, torch.nn.functional.softplus(right)) + picked

    tape = check(function, torch.rand(4, 5), torch.rand(6, 5))
    assert len(tape) < 14  # views and empty memory are not repeated


def test_results_that_are_views_or_several() -> None:
    check(lambda x: torch.topk(x, 2, -1).values.flip(-1) + x.sort(-1).values[..., :2], torch.rand(3, 7))
    check(lambda i, x: x[i].double().sum(0), torch.randint(3, (4,)), torch.rand(3, 2))


def test_what_is_written_in_place() -> None:
    def function(x):
        total = torch.zeros(3)
        for row in x.unbind():
            total += row
            total.clamp_(max=1.5)
        return total * 2

    check(function, torch.rand(4, 3))


@pytest.mark.parametrize("state", (True, False))
def test_native_kernels_are_called_without_their_wrappers(state: bool) -> None:
    q, k, v = torch.rand(2, 1, 2, 8), torch.rand(2, 1, 2, 8), torch.rand(2, 1, 2, 4)
    start = torch.rand(2, 2, 8, 4) if state else None
    tape, (o, last) = recorded(lambda *x: ops.linear_attention(*x, state=start), q, k, v)
    for t in (q, k, v):
        t.normal_()
    tape.play()
    expected = ops.linear_attention(q, k, v, state=start)
    assert torch.equal(o, expected[0])
    assert torch.equal(last, expected[1])


@pytest.mark.parametrize(
    "function",
    (
        lambda x: x * float(x.sum()),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.tolist()[0],
        lambda x: x[x > 0.5],
        lambda x: x.nonzero(),
        lambda x: x + torch.rand(3),
        lambda x: torch.nn.functional.dropout(x, 0.5),
        lambda x: torch.as_tensor(x.numpy() + 1),
    ),
)
def test_numbers_in_python_are_refused(function) -> None:
    with pytest.raises(NotRecordable):
        recorded(function, torch.rand(3))


def test_attention_draws_nothing_without_dropout() -> None:
    check(lambda q: torch.nn.functional.scaled_dot_product_attention(q, q, q), torch.rand(1, 2, 3, 8))


def test_a_pause_and_calls_of_any_kind() -> None:
    tape, x, seen = Tape(), torch.ones(2), []
    with tape.record():
        y = x + 1
        with tape.pause():
            assert not recording()
            z = float(y.sum())
        tape.add(lambda: seen.append(float(y.sum())))
    tape.play()
    assert seen == [z]
    assert len(tape) == 2


def test_another_thread_is_not_recorded() -> None:
    tape, q = Tape(), torch.rand(1, 1, 1, 8)
    with tape.record():
        other = threading.Thread(target=lambda: [ops.linear_attention(q, q, q), seen.append(recording())])
        seen: list[bool] = []
        other.start()
        other.join()
        assert recording()
    assert seen == [False]
    assert len(tape) == 0


def test_nan_and_integers_come_back() -> None:
    tape, out = recorded(lambda x: (x.log() * 2, x.to(torch.int64) + 1), torch.tensor([-1.0, 2.0]))
    tape.play()
    assert out[0].isnan().tolist() == [True, False]
    assert out[1].tolist() == [0, 3]


def test_fold_leaves_out_what_comes_of_constants():
    """What depends on the weight alone stays; what is written to in place, or by the native library, is made again."""
    weight, x, total = torch.randn(4), torch.randn(4), torch.zeros(4)

    def step():
        rate = weight.exp().neg()  # folded, both
        counted = torch.arange(4).to(torch.float32) + 1  # folded
        shifted = torch.zeros(4).add_(x)  # zeros are written to: they are made again
        norm = ops.rms_norm(torch.ones(1, 4), torch.ones(4))  # C may write to whatever it is given
        total.add_(rate * x + counted * shifted + norm[0])
        return total * 1

    tape = Tape()
    with tape.record():
        y = step()
    before = len(tape)
    tape.fold([weight])
    assert before - len(tape) == 5  # exp, neg, arange, to, + 1
    for _ in range(2):
        x.normal_()
        again = total.clone()
        tape.play()
        again += -weight.exp() * x + torch.arange(1, 5) * x + ops.rms_norm(torch.ones(1, 4), torch.ones(4))[0]
        torch.testing.assert_close(y, again)
