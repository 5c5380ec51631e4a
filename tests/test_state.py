"""States as values: verbs, files, refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch.utils import _pytree as pytree

import ritornello as rt
from ritornello.errors import CheckpointError, StateError


def some(batch: int = 3, length: int = 4) -> rt.State:
    inner = rt.State("inner", 2, {"heads": 2}, {"S": torch.randn(batch, 2, 5), "n": torch.arange(batch)})
    return rt.State("outer", 1, {"depth": 1}, {"block": inner, "cache": torch.randn(batch, length).bfloat16()})


def equal(one: rt.State, two: rt.State) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.tensors(), two.tensors(), strict=True))


def test_it_is_a_pytree():
    state = some()
    leaves, shape = pytree.tree_flatten(state)
    assert len(leaves) == 3
    again = pytree.tree_unflatten(leaves, shape)
    assert isinstance(again, rt.State) and again["block"].spec == {"heads": 2}
    doubled = pytree.tree_map(lambda t: t * 2, state)
    assert torch.equal(doubled["block"]["S"], 2 * state["block"]["S"])


def test_it_prints_its_shapes_in_one_line():
    told = "State('outer' v1, depth=1; block: State('inner' v2, heads=2; S: (3, 2, 5), n: (3,)), cache: (3, 4))"
    assert repr(some()) == told
    assert repr(rt.State("mlp", 1, {}, {})) == "State('mlp' v1)"


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        some().kind = "other"


def test_a_file_keeps_every_bit(tmp_path):
    state = some()
    state["block"]["S"][0, 0, 0] = float("nan")
    rt.state.save(state, tmp_path / "s.safetensors", extra={"last": [1, 2]})
    loaded, extra = rt.state.load_with_extra(tmp_path / "s.safetensors")
    assert extra == {"last": [1, 2]}
    assert loaded.kind == "outer" and loaded["block"].version == 2
    for mine, theirs in zip(state.tensors(), loaded.tensors(), strict=True):
        assert mine.dtype == theirs.dtype
        assert (
            mine.numpy(force=True).tobytes() == theirs.numpy(force=True).tobytes()
            if mine.dtype != torch.bfloat16
            else (torch.equal(mine.view(torch.int16), theirs.view(torch.int16)))
        )


def test_fork_rows_and_concat():
    state = some()
    forked = rt.state.fork(state, 2)
    assert forked.batch == 6
    assert torch.equal(forked["block"]["S"][1], state["block"]["S"][0])
    forked["cache"].zero_()
    assert state["cache"].any(), "a fork shares memory with its origin"
    assert rt.state.fork(state)["cache"].data_ptr() != state["cache"].data_ptr()
    assert equal(rt.state.concat([rt.state.rows(state, 0), rt.state.rows(state, [1, 2])]), state)
    assert torch.equal(rt.state.rows(state, torch.tensor([2, 0]))["block"]["n"], torch.tensor([2, 0]))
    for one in (1, torch.tensor(1), np.int64(1), slice(1, 2)):
        assert equal(rt.state.rows(state, one), rt.state.rows(state, [1]))
    joined = rt.state.concat([state, some(1, 7)])
    assert joined["cache"].shape == (4, 7) and not joined["cache"][0, 4:].any()


def test_to_detach_zeros_and_bytes():
    state = rt.state.map_tensors(lambda t: t.requires_grad_() if t.is_floating_point() else t, some())
    assert not any(t.requires_grad for t in rt.state.detach(state).tensors())
    wide = rt.state.to(state, torch.float64)
    assert wide["block"]["S"].dtype == torch.float64 and wide["block"]["n"].dtype == torch.int64
    assert not any(t.any() for t in rt.state.zeros_like(state).tensors())
    assert rt.state.nbytes(state) == 3 * 2 * 5 * 4 + 3 * 8 + 3 * 4 * 2


def windows_of(what: str):
    """A function of a state, or None, that reads a window and returns a loss and the state after it; its parameters."""
    if what == "cell":
        cell, x = rt.cells.LSTMCell(4, 4), torch.randn(2, 5, 4)
        return lambda h: (lambda found: (found.y.square().sum(), found.state))(rt.run(cell, x, h)), cell
    if what == "layer":
        layer, x = rt.layers.build("gla", 8), torch.randn(2, 5, 8)
        return lambda state: (lambda y, state: (y.square().sum(), state))(*layer(x, state)), layer
    model = rt.LanguageModel(rt.ModelConfig(vocab_size=11, width=8, pattern=["lstm", "gla"]))
    ids = torch.randint(11, (2, 5))
    return lambda state: model.loss(ids, state=state, return_state=True), model


@pytest.mark.parametrize("what", ["cell", "layer", "model"])
def test_a_state_is_carried_from_one_training_step_to_the_next_detached(what):
    """As the documentation of `State` says, with the error that it names where `detach` is left out."""
    torch.manual_seed(0)
    window, weights = windows_of(what)
    loss, state = window(None)
    loss.backward()
    assert "Trying to backward through the graph a second time" in (rt.State.__doc__ or "")
    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        window(state)[0].backward()
    cut = pytree.tree_map(torch.Tensor.detach, state) if what == "cell" else rt.state.detach(state)
    weights.zero_grad()
    loss, after = window(cut)
    loss.backward()
    assert all(p.grad is not None for p in weights.parameters())
    for mine, theirs in zip(pytree.tree_leaves(cut), pytree.tree_leaves(state), strict=True):
        assert torch.equal(mine, theirs) and not mine.requires_grad
    assert any(t.requires_grad for t in pytree.tree_leaves(after))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "gla"}, "of kind 'gla'"),
        ({"version": 9}, "of version 9"),
        ({"spec": {"depth": 2}}, "depth=2; this layer has depth=1"),
    ],
)
def test_another_state_is_refused(change, says):
    import dataclasses

    with pytest.raises(StateError, match=says):
        rt.state.check(dataclasses.replace(some(), **change), "outer", 1, {"depth": 1}, 3)


def test_other_refusals():
    with pytest.raises(StateError, match="holds 3 rows; the input has 2"):
        rt.state.check(some(), "outer", 1, {"depth": 1}, 2)
    with pytest.raises(StateError, match="dict"):
        rt.state.check({}, "outer", 1, {})
    with pytest.raises(StateError, match="has 3 rows"):
        rt.state.rows(some(), 3)
    with pytest.raises(StateError, match="at least one"):
        rt.state.concat([])
    other = some()
    other.leaves["block"].spec["heads"] = 4
    with pytest.raises(StateError, match="heads=4; this layer has heads=2"):  # else padded as if it were a cache
        rt.state.concat([some(), other])
    with pytest.raises(StateError, match="1 or more"):
        rt.state.fork(some(), 0)


@pytest.mark.parametrize(
    "verb",
    [
        rt.state.fork,
        rt.state.detach,
        lambda s: rt.state.to(s, "cpu"),
        lambda s: rt.state.rows(s, 0),
        lambda s: rt.state.concat([s]),
        rt.state.zeros_like,
        rt.state.nbytes,
        lambda s: rt.state.save(s, "never written"),
    ],
)
def test_what_is_no_state_is_refused(verb):
    with pytest.raises(
        StateError, match=r"`state` is a Tensor; wanted a State.* of a cell is bare .*: state.detach\(\)"
    ):
        verb(torch.zeros(2))
    with pytest.raises(StateError, match=r"`state` is a int; wanted a State, .* beside the output.$"):
        verb(2)


def test_broken_files_are_refused(tmp_path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(CheckpointError, match="no file"):
        rt.state.load(path)
    rt.state.save(some(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(CheckpointError, match="no whole safetensors"):
        rt.state.load(path)
    path.write_bytes(pickle.dumps({"S": 1}))
    with pytest.raises(CheckpointError, match="no whole safetensors"):
        rt.state.load(path)
    path.write_bytes(whole.replace(b'\\"cache\\"', b'\\"cachX\\"', 1))
    with pytest.raises(CheckpointError, match="tampered"):
        rt.state.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "s.safetensors"
    first = some()
    rt.state.save(first, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ritornello.state.save_file", full)
    with pytest.raises(OSError, match="No space"):
        rt.state.save(some(), path)
    assert equal(rt.state.load(path), first)
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


def test_a_fork_by_a_fraction_and_a_state_in_place_of_a_folder_are_refused(tmp_path):
    with pytest.raises(StateError, match=r"`n` of fork is 2\.5; wanted an integer"):
        rt.state.fork(some(), 2.5)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="which is a folder"):
        rt.state.save(some(), tmp_path)
    assert not list(tmp_path.iterdir())
