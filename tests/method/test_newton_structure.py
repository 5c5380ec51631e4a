"""The structure of a step's Jacobian is found from the step, and a wrong statement of it is caught."""

from __future__ import annotations

import pytest
import torch
from torch.utils import _pytree as pytree

import ritornello as rt
from ritornello import cells
from ritornello.method.newton._layout import Layout, Structure
from ritornello.method.newton._structure import derivatives
from tests.method.newton_cells import Bound, Tanh, build, explicit

KINDS = {
    "ElmanCell": (6, 1),
    "GRUCell": (6, 1),
    "LSTMCell": (12, 1),
    "M2RNNCell": (1, 18),  # its matrix starts as the identity
    "ParaGRUCell": (1, 6),
    "ParaLSTMCell": (2, 6),
    "IndRNNCell": (1, 6),
    "SLSTMCell": (4, 6),  # its recurrent matrix starts at 0
}


def structure(cell, x, **options):
    return rt.run(cell, x, method=rt.Newton(**options)).stats["jacobian"]


@pytest.mark.parametrize(("name", "sizes"), KINDS.items())
def test_what_is_found(name, sizes):
    cell, x = build(name, 20, torch.float64)
    k, count = sizes
    named = "diagonal" if k == 1 else f"{k}×{k} blocks of diagonals" if k <= 4 else f"{count} dense of {k}×{k}"
    assert structure(cell, x) == named


def test_rows_of_matrices():
    cell, x = build("M2RNNCell", 20, torch.float64)
    torch.nn.init.normal_(cell.weight)
    assert structure(cell, x) == "3×3 blocks of diagonals"


def test_heads_across_several_tensors():
    cell = cells.LSTMCell(4, 20, heads=4).double()
    assert structure(cell, torch.randn(2, 9, 4, dtype=torch.float64)) == "4 dense of 10×10"


@pytest.mark.parametrize("name", explicit())
def test_blocks_are_the_jacobian_of_torch(name):
    cell, x = build(name, 5, torch.float64)
    _check_blocks(cell, x)


def test_blocks_of_a_nest_of_states():
    _check_blocks(Bound(), torch.randn(2, 5, 6, dtype=torch.float64))


def _check_blocks(cell, x):
    from ritornello.method.newton._structure import structure_of

    u = pytree.tree_map(lambda t: t[:, 0].detach(), cell.drive(x))
    state = rt.run(cell, x).state
    layout, leaves = Layout.of("cell", state), [t.detach() for t in pytree.tree_leaves(state)]
    found = structure_of(cell, "auto", layout, u, leaves)
    _, block = derivatives(cell, found, u, leaves)

    def flat(h):
        new = cell.step(pytree.tree_map(lambda t: t[:1], u), layout.tree(layout.leaves(h.unsqueeze(0))))
        return layout.flat(pytree.tree_leaves(new), 1)[0]

    whole = torch.autograd.functional.jacobian(flat, layout.flat(leaves, 1)[0])
    k, count = found.groups.shape
    for g in range(count):
        members = found.groups[:, g]
        part = block[0][g] if k == 1 else block[0][g] if found.dense else block[0][..., g]
        torch.testing.assert_close(whole[members][:, members].squeeze(), part)
        whole[members.unsqueeze(1), members] = 0
    assert not whole.any()


def test_order_there_and_back():
    layout = Layout.of("cell", {"a": torch.zeros(1, 2, 3), "b": torch.zeros(1, 6)})
    for labels in (torch.arange(12) % 6, torch.arange(12) % 2, torch.arange(12) // 3, torch.zeros(12).long()):
        s, leaves = Structure.of(layout, labels), [torch.randn(4, 5, 2, 3), torch.randn(4, 5, 6)]
        for got, want in zip(s.from_order(s.to_order(leaves, 2)), leaves, strict=True):
            assert torch.equal(got, want)
    assert Structure.of(layout, torch.tensor([0] * 5 + [1] * 7)).size == 12  # unequal groups are taken as one


@pytest.mark.parametrize("stated", ["diagonal", "block"])
def test_a_wrong_statement_is_caught(stated):
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    with pytest.raises(rt.InputError, match=f"Tanh is stated to be '{stated}', and is not"):
        structure(Tanh(6, 0.5), x, jacobian=stated)
    cell = Tanh(6, 0.5)
    cell.jacobian = stated
    with pytest.raises(rt.InputError, match="'auto'"):
        structure(cell, x)
    cell = Tanh(6, 0.5)
    cell.jacobian = "wide"
    with pytest.raises(rt.InputError, match="it takes"):
        structure(cell, x)


def test_right_statements():
    x = torch.randn(2, 9, 6, dtype=torch.float64)
    assert structure(cells.ParaGRUCell(6, 6).double(), x, jacobian="diagonal") == "diagonal"
    assert structure(cells.ParaLSTMCell(6, 6).double(), x, jacobian="block") == "2×2 blocks of diagonals"
    assert structure(cells.ParaGRUCell(6, 6).double(), x, jacobian="dense") == "1 dense of 6×6"
    assert structure(Tanh(6, 0.5), x, jacobian="quasi") == "diagonal of 1 dense of 6×6"
    assert structure(cells.ParaGRUCell(6, 6).double(), x, jacobian="quasi") == "diagonal"


def test_a_structure_that_grows_is_found_again():
    """The recurrent matrix starts at 0 and is trained: what was diagonal is dense, and a statement becomes wrong."""
    x = torch.randn(2, 60, 6, dtype=torch.float64)
    cell, stated = Tanh(6, 0.0), Tanh(6, 0.0)
    assert structure(cell, x) == structure(stated, x, jacobian="diagonal") == "diagonal"
    with torch.no_grad():
        for c in (cell, stated):
            c.weight.normal_(std=0.3)
    want = rt.run(cell, x, method=rt.Sequential())
    got = rt.run(cell, x, method=rt.Newton(on_failure="raise"))
    assert got.stats["jacobian"] == "1 dense of 6×6" and (got.y - want.y).abs().max() < 1e-9
    with pytest.raises(rt.InputError, match="stated"):
        structure(stated, x, jacobian="diagonal")


def test_a_state_that_newton_cannot_differentiate():
    class Counted(rt.Cell):
        def initial_state(self, batch, like):
            return like.new_zeros(batch, 2), torch.zeros(batch, dtype=torch.long)

        def step(self, u, h):
            return torch.tanh(u + h[0]), h[1] + 1

    with pytest.raises(rt.InputError, match=r"int64.*rt.Sequential"):
        rt.run(Counted(), torch.randn(1, 4, 2), method=rt.Newton())


def test_a_state_too_large_for_a_matrix():
    class Wide(rt.Cell):
        state_shape = (5000,)

        def step(self, u, h):
            return torch.tanh(u + h.roll(1, -1))

    with pytest.raises(rt.BackendError, match=r"Wide has 5000 numbers.*Sequential"):
        rt.run(Wide(), torch.randn(1, 3, 5000), method=rt.Newton())
