"""Derivatives of the solution of an equation, by the implicit function theorem, from products with its derivative."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

from ritornello.errors import BackendError, ConvergenceError
from ritornello.implicit._anderson import fixed_point, rounding
from ritornello.implicit._weights import Weights
from ritornello.ops._op import transforms
from ritornello.sequence import Sequence
from ritornello.typing import Tensor, Tree

if TYPE_CHECKING:
    from ritornello.implicit.cell import ImplicitCell

__all__ = ["EVERY", "LOOSE", "attach", "first_only"]

LOOSE = {torch.float64: 1e-10}
"""What a residual must come to for a solution to be one, relative; 1e-5 below float64."""
MOST = 500
"""Products with the derivative at most, for one gradient."""
EVERY = 3
"""Over many times every third sweep is mixed."""


def attach(cell: ImplicitCell, u: Tree, y: Tensor, state: Tree, sequence: Sequence) -> tuple[Tensor, Tree]:
    """The outputs (B, T, ...) and the last state, as functions of u, of the first state and of all that `cell` uses.

    One more sweep from the solution y is the solution again, and carries all derivatives but those through y itself.
    What is missing is (1 − ∂F/∂y)⁻¹, which a backward pass solves for by products with ∂F/∂y transposed, and a forward
    one by products with it. Nothing is kept but the graph of one sweep.
    """
    swept = cell.sweep(u, y.detach(), state, sequence)
    leaves, spec = pytree.tree_flatten(swept)
    fixed = pytree.tree_map(torch.Tensor.detach, (u, state))
    solved = _Solved(cell, fixed[0], y.detach(), fixed[1], sequence, Weights(cell))
    found = _Implicit.apply(solved, *leaves)
    return pytree.tree_unflatten(list(found), spec)  # type: ignore[arg-type]


def first_only(what: str, cure: str) -> None:
    """Refuse a backward pass that is itself to be differentiated.

    PyTorch's own guard drops the second derivative where the loss is linear in the outputs, and leaves what other paths
    contribute to it.

    Raises:
        BackendError: with create_graph=True; under torch.func.grad and its like, which always asks for that.
    """
    if torch.is_grad_enabled() and transforms():
        raise BackendError(
            f"The gradient of {what} has no derivative of its own, for which torch.func's transforms ask. Take it "
            f"with backward() or torch.autograd.grad. {cure}"
        )
    if torch.is_grad_enabled():
        raise BackendError(f"The gradient of {what} cannot be differentiated again (create_graph=True). {cure}")


@dataclass(frozen=True, eq=False)
class _Solved:
    """An equation at its solution, without history."""

    cell: ImplicitCell
    u: Tree
    y: Tensor
    state: Tree
    sequence: Sequence
    weights: Weights

    def leaves(self, y: Tensor) -> list[Tensor]:
        with self.weights.there():
            return pytree.tree_leaves(self.cell.sweep(self.u, y, self.state, self.sequence))

    def solve(self, product: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
        """x = product(x) + given, both (B, T, ...)."""

        def flat(x: Tensor) -> Tensor:
            return x.reshape(1, -1) if self.sequence.cu_seqlens is not None else x.flatten(1)

        if given.numel() == 0:
            return given
        first = flat(given)
        every, enough = EVERY if given.shape[1] > 1 else 1, LOOSE.get(given.dtype, 1e-5)
        found = fixed_point(
            lambda x: flat(product(x.view_as(given)) + given),
            first,
            rounding(given.dtype),
            MOST,
            every=every,
            enough=enough,
        )
        worst = float(found.residual.max())
        if not worst <= enough:
            raise ConvergenceError(
                f"The derivative of {type(self.cell).__name__} at its solution over T = {self.y.shape[1]} was not "
                f"found: after {found.sweeps} products the residual is {worst:.1e}, relative. Run it with "
                "rt.Sequential(), or over shorter windows."
            )
        return found.y.view_as(given)


class _Implicit(torch.autograd.Function):
    """The identity on what a sweep from the solution gives; its derivative is multiplied by (1 − ∂F/∂y)⁻¹."""

    @staticmethod
    def forward(solved: _Solved, *swept: Tensor) -> tuple[Tensor, ...]:
        return tuple(x.clone() for x in swept)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.solved = inputs[0]
        ctx.set_materialize_grads(True)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """g = ∂L/∂y + (∂h/∂y)ᵀ ∂L/∂h + (∂F/∂y)ᵀ g."""
        solved: _Solved = ctx.solved
        first_only(f"{type(solved.cell).__name__}, whose step is an equation,", "It is solved for, and not recorded.")
        with torch.enable_grad(), torch.autocast(grads[0].device.type, enabled=False):
            y = solved.y.requires_grad_() if solved.y.is_leaf else solved.y.detach().requires_grad_()
            swept = solved.leaves(y)

        def pull(weights: list[tuple[Tensor, Tensor]]) -> Tensor:
            weights = [(x, w) for x, w in weights if x.requires_grad]
            if not weights:
                return torch.zeros_like(y)
            outputs, given = zip(*weights, strict=True)
            (found,) = torch.autograd.grad(outputs, y, given, retain_graph=True, allow_unused=True)
            return torch.zeros_like(y) if found is None else found

        given = grads[0] + pull(list(zip(swept[1:], grads[1:], strict=True)))
        g = solved.solve(lambda g: pull([(swept[0], g)]), given)
        return None, g, *grads[1:]

    @staticmethod
    def jvp(ctx: Any, _: None, *tangents: Tensor) -> tuple[Tensor, ...]:
        solved: _Solved = ctx.solved

        def push(tangent: Tensor) -> list[Tensor]:
            return torch.func.jvp(solved.leaves, (solved.y,), (tangent,))[1]

        along = solved.solve(lambda t: push(t)[0], tangents[0])
        return along, *(t + p for t, p in zip(tangents[1:], push(along)[1:], strict=True))
