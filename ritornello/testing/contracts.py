"""The contracts that every layer keeps, one function each: ``contract(subject, dtype)`` fails with a sentence."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.utils import checkpoint

import ritornello as rt
from ritornello.errors import BackendError, InputError, StateError
from ritornello.kernels import registry
from ritornello.method.base import has_fused
from ritornello.testing.subject import Subject, close, gradients, leaf_state, same_state

__all__ = ["CONTRACTS"]

BATCH, LENGTH = 2, 23
METHODS = (rt.Auto(), rt.Sequential(), rt.Fused(), rt.Scan(5), rt.Chunked(7))


@contextmanager
def refused(error: type[Exception]) -> Iterator[None]:
    """Fail where what stands inside is not refused with `error`."""
    try:
        yield
    except error:
        return
    raise AssertionError(f"what should be refused with {error.__name__} was taken")


def oracle(subject: Subject, dtype: torch.dtype) -> None:
    """The outputs are those of an independent implementation: agreement among our own methods cannot see a wrong
    equation."""
    assert subject.oracle is not None, "there is no oracle: write one that is not built on the layer's own code"
    layer = subject.layer(torch.float64)
    x = subject.input(layer, BATCH, LENGTH)
    with torch.no_grad():
        want = subject.oracle(layer, x)
        close(layer.to(dtype)(x.to(dtype))[0], want, dtype, "against the oracle")


def methods_agree(subject: Subject, dtype: torch.dtype) -> None:
    """Outputs, final state and all gradients are the same for every method; an affine layer runs them all."""
    layer = subject.layer(dtype)
    with torch.no_grad():
        begun = layer(subject.input(layer, BATCH, 5, dtype, seed=9))[1]
    answers = {}
    for method in METHODS:
        x = subject.input(layer, BATCH, LENGTH, dtype).requires_grad_()
        start = leaf_state(begun)
        try:
            y, state = layer(x, start, method=method)
        except BackendError as error:
            refusal = str(error)
            if layer.traits.affine or isinstance(method, rt.Auto) or "These can" not in refusal:
                raise AssertionError(f"{method} refuses, or does not name the methods that can: {refusal}") from error
            continue
        answers[method] = y, state, gradients(layer, y, state, x, start)
    want_y, want_state, want_grads = answers[rt.Sequential() if rt.Sequential() in answers else rt.Auto()]
    for method, (y, state, grads) in answers.items():
        close(y, want_y, dtype, f"{method}: outputs")
        same_state(layer, state, want_state, dtype, f"{method}")
        for name, grad in grads.items():
            close(grad, want_grads[name], dtype, f"{method}: gradient of {name}")


def any_cut(subject: Subject, dtype: torch.dtype) -> None:
    """A prefix, then the suffix from its state, equals the whole; no steps, single steps and no rows included."""
    layer = subject.layer(dtype)
    x = subject.input(layer, BATCH, LENGTH, dtype)
    with torch.no_grad():
        whole, end = layer(x)
        for cuts in ([0], [1], [LENGTH], [LENGTH - 1], [4, 4, 11], [7, 8, 9, 10]):
            outputs, state = [], layer.initial_state(BATCH, like=x)
            for start, stop in zip([0, *cuts], [*cuts, LENGTH], strict=True):
                y, state = layer(x[:, start:stop], state)
                outputs.append(y)
            close(torch.cat(outputs, 1), whole, dtype, f"cut at {cuts}")
            same_state(layer, state, end, dtype, f"cut at {cuts}")
        nothing, state = layer(x[:0])
        assert nothing.shape == x[:0].shape, f"of no rows it makes {tuple(nothing.shape)}"
        assert state.batch == 0, f"of no rows it has read {state.batch}"


def streaming(subject: Subject, dtype: torch.dtype) -> None:
    """Step by step with the state given away equals the whole; a state that was not given away is not written to."""
    layer = subject.layer(dtype)
    x = subject.input(layer, BATCH, LENGTH, dtype)
    with torch.no_grad():
        whole, end = layer(x)
        kept = layer(x[:, :9])[1]
        before = rt.state.fork(kept)
        layer(x[:, 9:], kept)
        for mine, theirs in zip(kept.tensors(), before.tensors(), strict=True):
            assert torch.equal(mine, theirs), "the state was written to, though it was not given away"
        state, outputs = layer.initial_state(BATCH, like=x), []
        for step in x.split(1, 1):
            y, state = layer(step, state, donate=True)
            outputs.append(y)
        close(torch.cat(outputs, 1), whole, dtype, "streamed")
        same_state(layer, state, end, dtype, "streamed")
        # A streamed state may have room to spare; when it is not given away, that room is not written to either.
        before = rt.state.fork(state)
        layer(x[:, :1], state)
        for mine, theirs in zip(state.tensors(), before.tensors(), strict=True):
            assert torch.equal(mine, theirs), "a streamed state was written to, though it was not given away"


def causal(subject: Subject, dtype: torch.dtype) -> None:
    """What comes later changes nothing before it, and one row changes nothing in another."""
    layer = subject.layer(dtype)
    x = subject.input(layer, BATCH, LENGTH, dtype)
    other = subject.input(layer, BATCH, LENGTH, dtype, seed=4)
    with torch.no_grad():
        whole = layer(x)[0]
        if layer.traits.causal:
            changed = torch.cat([x[:, :11], other[:, 11:]], 1)
            close(layer(changed)[0][:, :11], whole[:, :11], dtype, "an output depends on a later input")
        mixed = torch.stack([x[0], other[1]])
        close(layer(mixed)[0][:1], whole[:1], dtype, "a row depends on another one")


def masks(subject: Subject, dtype: torch.dtype) -> None:
    """A masked step is skipped as if it were not there: padding left, right, holes, whole rows; NaN there is
    harmless."""
    layer = subject.layer(dtype)
    x = subject.input(layer, 5, 12, dtype)
    full = torch.ones(5, 12, dtype=torch.bool)
    full[1, :5], full[2, 7:], full[4] = False, False, False
    full[3] = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0, 1, 1, 0, 1], dtype=torch.bool)
    begun = layer(subject.input(layer, 5, 3, dtype, seed=8))[1]
    fewer = full.clone()
    fewer[0, 9:] = False  # with the three before, no row has read more than the twelve there are: no shape tells them
    for start, mask in ((None, full), (begun, fewer)):
        spoiled = x.masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
        y, state = layer(spoiled, start, mask=mask)
        (grad,) = torch.autograd.grad(y.sum(), spoiled, retain_graph=True)
        assert not y[~mask].any(), "the output of a masked step is not zero"
        assert not grad[~mask].any() and torch.isfinite(grad).all(), "the gradient of a masked step is not zero"
        for row in range(5):
            alone = x[row : row + 1, mask[row]].detach()
            want, want_state = layer(alone, None if start is None else rt.state.rows(start, row))
            close(y[row : row + 1, mask[row]], want, dtype, f"row {row} of a masked batch")
            same_state(layer, rt.state.rows(state, row), want_state, dtype, f"row {row} of a masked batch")


def packing(subject: Subject, dtype: torch.dtype) -> None:
    """Packed sequences equal separate calls, outputs, states and gradients; steps beyond the last give zero, whatever
    stands there."""
    layer = subject.layer(dtype)
    x = subject.input(layer, 1, 20, dtype)
    x[:, 17:] = float("nan")
    x.requires_grad_()
    ends = torch.tensor([0, 6, 6, 7, 17])
    start = leaf_state(layer(subject.input(layer, 4, 4, dtype, seed=5))[1])
    y, state = layer(x, start, cu_seqlens=ends)
    assert not y[:, 17:].any(), "the output of a step beyond the last sequence is not zero"
    parts, finals = [], []
    for row, (a, b) in enumerate(zip(ends.tolist(), ends.tolist()[1:], strict=False)):
        want, final = layer(x[:, a:b], rt.state.rows(start, row))
        parts.append(want)
        finals.append(final)
    close(y[:, :17], torch.cat(parts, 1), dtype, "packed sequences")
    for row, final in enumerate(finals):
        same_state(layer, rt.state.rows(state, row), final, dtype, f"packed sequence {row}")
    mine = torch.autograd.grad(y.double().square().sum(), [x, *layer.parameters()], allow_unused=True)
    theirs = torch.autograd.grad(
        torch.cat(parts, 1).double().square().sum(), [x, *layer.parameters()], allow_unused=True
    )
    for got, want in zip(mine, theirs, strict=True):
        if want is not None:
            close(got, want, dtype, "gradients through packed sequences")


def directions(subject: Subject, dtype: torch.dtype) -> None:
    """Backward is forward on each sequence reversed, in rows and packed; a state cannot be continued."""
    layer = subject.layer(dtype)
    rows = subject.input(layer, BATCH, 9, dtype)
    x = subject.input(layer, 1, 15, dtype)
    ends = torch.tensor([0, 4, 12])

    def turn(t: torch.Tensor) -> torch.Tensor:
        return torch.cat([t[:, :4].flip(1), t[:, 4:12].flip(1), t[:, 12:]], 1)

    with torch.no_grad():
        flipped = layer(rows.flip(1))[0].flip(1)
        ahead = layer(x, cu_seqlens=ends)[0]
        layer.direction = "backward"
        close(layer(rows)[0], flipped, dtype, "backward rows")
        back, state = layer(turn(x), cu_seqlens=ends)
        close(turn(back), ahead, dtype, "backward")
        with refused(StateError):
            layer(x, state, cu_seqlens=ends)
        layer.direction = "both"
        both = layer(x, cu_seqlens=ends)[0]
        layer.direction = "backward"
        close(both, ahead + layer(x, cu_seqlens=ends)[0], dtype, "both directions")


def state_in_a_file(subject: Subject, dtype: torch.dtype) -> None:
    """A state through a file is the same to the bit; another layer's, version's, size's or batch's is refused."""
    layer = subject.layer(dtype)
    x = subject.input(layer, BATCH, LENGTH, dtype)
    with torch.no_grad():
        state = layer(x)[1]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            rt.state.save(state, path)
            loaded = rt.state.load(path)
        for mine, theirs in zip(loaded.tensors(), state.tensors(), strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs), "a state changed in a file"
        doubled = rt.state.fork(loaded, 2)
        y = layer(x.repeat_interleave(2, 0), doubled)[0]
        close(y[::2], layer(x, state)[0], dtype, "a forked state")
        if state.leaves:
            others = [
                rt.State("nothing", state.version, state.spec, state.leaves),
                rt.State(state.kind, state.version + 1, state.spec, state.leaves),
                rt.State(state.kind, state.version, {**state.spec, "extra": 1}, state.leaves),
                rt.state.rows(state, [0]),
            ]
            for other in others:
                with refused(StateError):
                    layer(x, other)


def backends_agree(subject: Subject, dtype: torch.dtype) -> None:
    """Outputs, states and gradients are those of the reference backend, on every backend there is for a CPU."""
    layer = subject.layer(dtype)
    answers = {}
    for backend in registry.BACKENDS:
        x = subject.input(layer, BATCH, 70, dtype).requires_grad_()
        try:
            with rt.backend(backend):
                y, state = layer(x)
        except BackendError:
            continue
        answers[backend] = y, state, gradients(layer, y, state, x, None)
    want_y, want_state, want_grads = answers["reference"]
    for backend, (y, state, grads) in answers.items():
        close(y, want_y, dtype, f"{backend}: outputs")
        same_state(layer, state, want_state, dtype, backend)
        for name, grad in grads.items():
            close(grad, want_grads[name], dtype, f"{backend}: gradient of {name}")


def low_precision(subject: Subject, dtype: torch.dtype) -> None:
    """In bfloat16 and under autocast the outputs keep the input's dtype and stay near those of float32."""
    layer = subject.layer(torch.float32)
    x = subject.input(layer, BATCH, LENGTH, torch.float32)
    with torch.no_grad():
        want = layer(x)[0]
        with torch.autocast("cpu", torch.bfloat16):
            got = layer(x)[0]
        close(got.float(), want, torch.bfloat16, "under autocast")
        half = layer.to(torch.bfloat16)
        y, halved = half(x.to(torch.bfloat16))
        assert y.dtype == torch.bfloat16, f"the output of a bfloat16 input is {y.dtype}"
        close(y.float(), want, torch.bfloat16, "in bfloat16")
    for name, leaf in half.leaves().items():
        kept = halved[name]
        assert isinstance(kept, torch.Tensor), f"state {name!r} is no tensor"
        assert kept.dtype == leaf.dtype(torch.bfloat16), f"state {name!r} is {kept.dtype}"


def gradients_everywhere(subject: Subject, dtype: torch.dtype) -> None:
    """Every parameter gets a finite gradient that is not zero, and recomputation gives the same ones."""
    layer = subject.layer(dtype)
    x = subject.input(layer, BATCH, LENGTH, dtype).requires_grad_()
    plain = torch.autograd.grad(layer(x)[0].square().sum(), [x, *layer.parameters()])
    again = checkpoint.checkpoint(lambda t: layer(t)[0], x, use_reentrant=False)
    replayed = torch.autograd.grad(again.square().sum(), [x, *layer.parameters()])
    for name, one, two in zip(["x", *(n for n, _ in layer.named_parameters())], plain, replayed, strict=True):
        assert torch.isfinite(one).all() and one.any(), f"the gradient of {name} is zero or not finite"
        close(two, one, dtype, f"recomputed gradient of {name}")


def bad_input(subject: Subject, dtype: torch.dtype) -> None:
    """A wrong shape, dtype, mask or packing is refused with a sentence."""
    layer = subject.layer(dtype)
    x = subject.input(layer, BATCH, 6, dtype)
    mask = torch.ones(BATCH, 6, dtype=torch.bool)
    ends = torch.tensor([0, 6])
    for arguments, options in (
        ((x[..., :-1],), {}),
        ((x[0],), {}),
        ((x.long(),), {}),
        ((x,), {"mask": mask[:, :-1]}),
        ((x,), {"mask": mask.float()}),
        ((x,), {"cu_seqlens": ends}),
        ((x[:1],), {"cu_seqlens": torch.tensor([0, 4, 2])}),
        ((x[:1],), {"cu_seqlens": torch.tensor([0, 7])}),
        ((x[:1],), {"cu_seqlens": ends, "mask": mask[:1]}),
        ((x, {"not": "a state"}), {}),
        ((x,), {"method": "scan"}),
    ):
        with refused(InputError):
            layer(*arguments, **options)


def compiled(subject: Subject, dtype: torch.dtype) -> None:
    """An affine layer, or one whose cell is run by an op, compiles into one graph, forward and backward, with the same
    numbers."""
    layer = subject.layer(dtype)
    if not layer.traits.affine and not any(isinstance(m, rt.Cell) and has_fused(m) for m in layer.modules()):
        return
    x = subject.input(layer, BATCH, LENGTH, dtype).requires_grad_()
    torch._dynamo.reset()
    run = torch.compile(layer, fullgraph=True, backend="aot_eager")
    state = layer(x.detach()[:, :5])[1]
    for start in (None, rt.state.detach(state)):
        want, got = layer(x, start)[0], run(x, start)[0]
        close(got, want, dtype, "compiled")
        inputs = [x, *layer.parameters()]
        for a, b in zip(
            torch.autograd.grad(got.square().sum(), inputs),
            torch.autograd.grad(want.square().sum(), inputs),
            strict=True,
        ):
            close(a, b, dtype, "gradients of the compiled layer")


CONTRACTS = (
    oracle,
    methods_agree,
    any_cut,
    streaming,
    causal,
    masks,
    packing,
    directions,
    state_in_a_file,
    backends_agree,
    low_precision,
    gradients_everywhere,
    bad_input,
    compiled,
)
