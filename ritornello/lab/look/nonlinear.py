"""What can be told of a Cell that is not affine: derivatives along the path that it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ritornello.cell import Cell
from ritornello.lab.look.capture import Solved
from ritornello.lab.look.linear import PROBES, directions
from ritornello.method import Sequential
from ritornello.typing import Tensor, Tree

__all__ = ["Path"]

ROWS = 2048  # tangents that are carried along together, unless that left fewer than 4 for each step
MATRICES = 16  # steps whose Jacobians' eigenvalues are computed, evenly chosen where there are more


class Path:
    """The states of a cell along a sequence (batch 1), and derivatives of them.

    Args:
        solved: a cell as `recording` keeps it.
    """

    def __init__(self, solved: Solved):
        assert isinstance(solved.recurrence, Cell)
        self.cell, self.u, self.x = solved.recurrence, solved.query, solved.x
        states = Sequential().solve(self.cell, self.u, solved.state)[0]
        leaves, self._shape = pytree.tree_flatten(states)
        first = pytree.tree_leaves(solved.state)
        self._sizes = [t.shape[2:] for t in leaves]
        self.after = _flat(leaves, 2)[0]  # (T, n)
        self.before = torch.cat([_flat(first, 1), self.after[:-1]])
        self.length = len(self.after)
        self.probes = min(PROBES, max(4, ROWS // self.length))

    def state_norms(self) -> Tensor:
        """‖h_t‖ (1, T) of all tensors of the state together; (H, T) where it is one of heads of matrices."""
        sizes = self._sizes
        if len(sizes) == 1 and len(sizes[0]) == 3:
            return torch.linalg.vector_norm(self.after.view(self.length, sizes[0][0], -1), dim=-1).T
        return torch.linalg.vector_norm(self.after, dim=-1).unsqueeze(0)

    def influence(self) -> Tensor:
        """‖∂h_t/∂h_s‖ (1, T, T) for s ≤ t, relative to the identity's norm: 1 where s = t."""
        probes = directions(self.after.shape[-1], self.after, self.probes)
        injected = probes.expand(self.length, *probes.shape)
        carried = self._carry(injected, lambda time, tangents: tangents)
        return (carried / self.after.shape[-1] ** 0.5).unsqueeze(0)

    def sensitivity(self) -> Tensor:
        """‖∂o_t/∂x_s‖ (1, T, T) for s ≤ t, Frobenius: of the cell's outputs in its inputs."""
        leaves, shape = pytree.tree_flatten(self.x)
        sizes = [t.shape[2:] for t in leaves]
        probes = directions(sum(s.numel() for s in sizes), leaves[0], self.probes)  # (R, n)
        tangent_x = pytree.tree_unflatten(
            [p.expand(self.length, *p.shape).transpose(0, 1) for p in _parts(probes, sizes)], shape
        )  # leaves (R, T, ...)
        wide_x = pytree.tree_map(lambda t: t.expand(len(probes), *t.shape[1:]), self.x)
        tangent_u = _jvp(self.cell.drive, (wide_x,), (tangent_x,))
        injected = []
        for r in range(len(probes)):  # all times at once, in the batch
            du = pytree.tree_map(lambda t, r=r: t[r], tangent_u)
            u = pytree.tree_map(lambda t: t[0], self.u)
            injected.append(_jvp(lambda v: self._step(v, self.before), (u,), (du,)))

        def read(time: int, tangents: Tensor) -> Tensor:
            """The tangents (rows, R, n) of the outputs; the last row is of this step, which sees its input too."""
            rows = tangents.shape[0] * tangents.shape[1]
            h = self.after[time].expand(rows, -1)
            u = pytree.tree_map(lambda t: t[:, time].expand(rows, *t.shape[2:]), self.u)
            du = pytree.tree_map(
                lambda t, d: torch.cat([t.new_zeros(rows - len(d), *t.shape[2:]), d[:, time].to(t.dtype)]),
                self.u, tangent_u,
            )  # fmt: skip
            outputs = _jvp(self._read, (u, h), (du, tangents.flatten(0, 1)))
            return outputs.flatten(1).unflatten(0, tangents.shape[:2])

        return self._carry(torch.stack(injected, 1), read).unsqueeze(0)

    def eigenvalues(self) -> Tensor:
        """The eigenvalues (1, steps, n) of ∂h_t/∂h_{t−1}, complex, at no more than 16 steps, evenly chosen."""
        chosen = torch.linspace(0, self.length - 1, min(self.length, MATRICES)).round().long()
        eye = torch.eye(self.after.shape[-1], dtype=self.after.dtype, device=self.after.device)
        found = []
        for time in chosen.tolist():
            columns = self._push(time, eye)  # row i: the derivative in direction i
            found.append(torch.linalg.eigvals(columns.T))
        return torch.stack(found).unsqueeze(0)

    def _carry(self, injected: Tensor, observe: Callable[[int, Tensor], Tensor]) -> Tensor:
        """(T, T) norms of what is observed of the tangents `injected` (T, R, n), set in at s and carried on to t."""
        carried, rows = injected[:0], []
        for time in range(self.length):
            if time:
                carried = self._push(time, carried.flatten(0, 1)).unflatten(0, carried.shape[:2])
            carried = torch.cat([carried, injected[time : time + 1]])
            norms = torch.linalg.vector_norm(observe(time, carried).flatten(1), dim=-1)
            rows.append(torch.nn.functional.pad(norms, (0, self.length - len(norms))))
        return torch.stack(rows)

    def _push(self, time: int, tangents: Tensor) -> Tensor:
        """(rows, n) → (rows, n): ∂h_t/∂h_{t−1} times each."""
        rows = len(tangents)
        u = pytree.tree_map(lambda t: t[:, time].expand(rows, *t.shape[2:]), self.u)
        h = self.before[time].expand(rows, -1)
        return _jvp(lambda s: self._step(u, s), (h,), (tangents,))

    def _step(self, u: Tree, h: Tensor) -> Tensor:
        return _flat(pytree.tree_leaves(self.cell.step(u, self._tree(h))), 1)

    def _read(self, u: Tree, h: Tensor) -> Tensor:
        one = pytree.tree_map(lambda t: t.unsqueeze(1), u)
        y = self.cell.read(one, pytree.tree_map(lambda t: t.unsqueeze(1), self._tree(h)))
        return _flat(pytree.tree_leaves(y), 2).squeeze(1)

    def _tree(self, h: Tensor) -> Tree:
        return pytree.tree_unflatten(_parts(h, self._sizes), self._shape)


def _jvp(function: Callable, primals: tuple, tangents: tuple) -> Any:
    """The derivative of `function` along the tangents. Both are written out: forward mode takes no expanded tensors."""
    primals, tangents = pytree.tree_map(lambda t: t.contiguous(), (primals, tangents))
    return torch.func.jvp(function, primals, tangents)[1]


def _flat(leaves: list[Tensor], lead: int) -> Tensor:
    return torch.cat([t.reshape(*t.shape[:lead], -1) for t in leaves], -1)


def _parts(flat: Tensor, sizes: list[torch.Size]) -> list[Tensor]:
    parts = flat.split([s.numel() for s in sizes], -1)
    return [part.reshape(*flat.shape[:-1], *size) for part, size in zip(parts, sizes, strict=True)]
