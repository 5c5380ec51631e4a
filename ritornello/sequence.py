"""Where sequences begin and end along time: masks, packing, padding, positions and direction, each written once.

Layers see one form only: rows of equal length, or sequences packed end to end in a batch of one with `cu_seqlens`.
A mask is brought to the packed form by a stable sort (shapes stay static), and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ritornello.errors import InputError
from ritornello.typing import Tensor, Tree

__all__ = ["Masked", "Sequence", "check_bounds", "leading"]


def check_bounds(cu_seqlens: Any, batch: int, length: int, name: str = "`cu_seqlens`") -> None:
    """Refuse what are no bounds of sequences packed along `length` steps of a batch of 1.

    The numbers are looked at where that costs nothing. A kernel trusts them: see `check_order`.

    Raises:
        InputError: no tensor of (N + 1,) integers; another batch than 1; numbers that do not start with 0, decrease, or
            go beyond the steps there are.
    """
    if not isinstance(cu_seqlens, torch.Tensor):
        raise InputError(
            f"{name} is a {type(cu_seqlens).__name__}; wanted a tensor of (N + 1,) integers: the starts of N "
            "sequences, then the end."
        )
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise InputError(
            f"{name} has shape {tuple(cu_seqlens.shape)} and dtype {cu_seqlens.dtype}; wanted (N + 1,) integers, int32 "
            "or int64: the starts of N sequences, then the end."
        )
    if batch != 1:
        raise InputError(
            f"{name} was given with a batch of {batch}; packed sequences lie along time in a batch of 1. Reshape the "
            "input to (1, total, ...), or use a mask."
        )
    if _is_known(cu_seqlens):
        check_order(cu_seqlens, length, name)


def check_order(cu_seqlens: Tensor, length: int, name: str = "`cu_seqlens`") -> None:
    """Refuse bounds whose numbers are none of sequences within `length` steps: their memory would not be ours."""
    ends = cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] > length or any(a > b for a, b in pairwise(ends)):
        raise InputError(
            f"{name} is {ends[:8]}{'...' if len(ends) > 8 else ''}; wanted 0 first, then never decreasing, and at most "
            f"the {length} time steps there are."
        )


def _demand_device(name: str, tensor: Tensor, x: Tensor) -> None:
    if tensor.device != x.device:
        raise InputError(
            f"`{name}` is on {tensor.device}, and the input on {x.device}. Move it: {name}.to({str(x.device)!r})."
        )


def _is_known(bounds: Tensor) -> bool:
    """Whether the numbers of a tensor are there to be read, without waiting for a device or breaking a graph."""
    return type(bounds) is torch.Tensor and bounds.device.type == "cpu" and not torch.compiler.is_compiling()


@dataclass(frozen=True, eq=False)
class Sequence:
    """The sequences that lie in a tensor (B, T, ...).

    Args:
        batch: how many sequences there are: B, or N where they are packed.
        length: T, the time steps of the tensor.
        cu_seqlens: (N + 1,) their bounds where they are packed (then B = 1); None for rows of equal length.
        longest: a bound on the packed sequences' lengths; read from `cu_seqlens` where None.
    """

    batch: int
    length: int
    cu_seqlens: Tensor | None = None
    longest: int | None = None

    @staticmethod
    def of(x: Tensor, cu_seqlens: Tensor | None = None) -> Sequence:
        """The sequences in `x` (B, T, ...), with `cu_seqlens` checked against it."""
        if cu_seqlens is None:
            return Sequence(x.shape[0], x.shape[1])
        check_bounds(cu_seqlens, x.shape[0], x.shape[1])
        _demand_device("cu_seqlens", cu_seqlens, x)
        return Sequence(cu_seqlens.shape[0] - 1, x.shape[1], cu_seqlens.long())

    # ---------------------------------------------------------------------------------------------- times and lengths

    def lengths(self, device: torch.device | None = None) -> Tensor:
        """(N,) the number of steps of each sequence, int64."""
        if self.cu_seqlens is None:
            return torch.full((self.batch,), self.length, dtype=torch.long, device=device)
        return self.cu_seqlens.diff()

    def after(self, position: Tensor) -> Tensor:
        """(N,) the number of steps that each sequence has read, from that before these steps."""
        return position + (self.length if self.cu_seqlens is None else self.lengths())

    def owners(self) -> Tensor:
        """(1, T) the sequence to which each packed step belongs; N for the steps beyond the last."""
        assert self.cu_seqlens is not None
        steps = torch.arange(self.length, device=self.cu_seqlens.device)
        return torch.searchsorted(self.cu_seqlens[1:].contiguous(), steps, right=True).unsqueeze(0)

    def positions(self, device: torch.device | None = None) -> Tensor:
        """(B, T) the index of each step in its own sequence, int64; where they are packed on the bounds' own device."""
        if self.cu_seqlens is None:
            return torch.arange(self.length, device=device).expand(self.batch, -1)
        steps = torch.arange(self.length, device=self.cu_seqlens.device).unsqueeze(0)
        return steps - self.cu_seqlens[self.owners().clamp(max=self.batch)]

    def places(self, read: Tensor) -> Tensor:
        """(B, T) the index of each step among all that its sequence has read, `read` (N,) of them before."""
        return self.positions(read.device) + self.per_step(read)

    def per_step(self, rows: Tensor) -> Tensor:
        """(N, ...) → (B, T, ...): to every step the value of its sequence (that of the last beyond the end)."""
        if self.cu_seqlens is None:
            return rows.unsqueeze(1).expand(-1, self.length, *rows.shape[1:])
        if self.batch == 0:
            return rows.new_zeros(1, self.length, *rows.shape[1:])
        return rows[self.owners().clamp(max=self.batch - 1)]

    # -------------------------------------------------------------------------------------------------- token shift

    def shift(self, x: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """x_{t−1} at every step, and the last x of each sequence.

        Args:
            x: (B, T, D).
            previous: (N, D), what came before the first step of each sequence.

        Returns:
            (B, T, D), and (N, D): `previous` where a sequence has no steps.
        """
        previous = previous.to(x.dtype)
        if self.cu_seqlens is None:
            if self.length == 1:
                return previous.unsqueeze(1), x[:, 0]
            return torch.cat([previous.unsqueeze(1), x[:, :-1]], 1)[:, : self.length], (
                x[:, -1] if self.length else previous
            )
        if self.batch == 0 or self.length == 0:
            return torch.zeros_like(x), previous
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        first = (self.positions() == 0).unsqueeze(-1)
        lengths = self.lengths().unsqueeze(-1)
        last = x[0, (self.cu_seqlens[1:] - 1).clamp(min=0)]
        return torch.where(first, self.per_step(previous), before), torch.where(lengths > 0, last, previous)

    # ----------------------------------------------------------------------------------------- packed ↔ padded rows

    def pad(self, tree: Tree) -> Tree:
        """Packed (1, T, ...) → rows (N, L, ...) of the longest length, each filled up with copies of some step.

        Mask with `valid`, or give the filled steps a meaning, before using them. Rows of equal length stay as they are.
        """
        if self.cu_seqlens is None:
            return tree
        steps = self.cu_seqlens[:-1].unsqueeze(1) + torch.arange(self._longest(), device=self.cu_seqlens.device)
        steps = steps.clamp(max=max(self.length - 1, 0))
        return pytree.tree_map(lambda x: x[0, steps] if self.length else x.expand(self.batch, *x.shape[1:]), tree)

    def valid(self, device: torch.device | None = None) -> Tensor:
        """(N, L) which of the padded steps are steps of their sequence."""
        longest = self.length if self.cu_seqlens is None else self._longest()
        return torch.arange(longest, device=device).unsqueeze(0) < self.lengths(device).unsqueeze(1)

    def unpad(self, tree: Tree) -> Tree:
        """The inverse of `pad`: rows (N, L, ...) → packed (1, T, ...), zero beyond the last sequence."""
        if self.cu_seqlens is None:
            return tree
        owners, positions = self.owners()[0], self.positions()[0]
        used = owners < self.batch
        owners, positions = torch.where(used, owners, 0), torch.where(used, positions, 0)

        def take(x: Tensor) -> Tensor:
            if x.shape[0] == 0 or x.shape[1] == 0:
                return x.new_zeros(1, self.length, *x.shape[2:])
            packed = x[owners, positions]
            return torch.where(used.view(-1, *(1,) * (packed.dim() - 1)), packed, 0).unsqueeze(0)

        return pytree.tree_map(take, tree)

    def clear_unused(self, x: Tensor) -> Tensor:
        """x with zeros beyond the last packed sequence: no output and no gradient knows what stands there, NaN even."""
        if self.cu_seqlens is None or self._all_used():
            return x
        used = torch.arange(self.length, device=x.device) < self.cu_seqlens[-1]
        return torch.where(used.view(-1, *(1,) * (x.dim() - 2)), x, x.new_zeros(()))

    def _all_used(self) -> bool:
        """Whether it costs nothing to know that the last sequence ends where the tensor does."""
        bounds = self.cu_seqlens
        return bounds is not None and _is_known(bounds) and int(bounds[-1]) == self.length

    def _longest(self) -> int:
        if self.longest is not None:
            return self.longest
        return int(self.lengths().max()) if self.batch else 0

    # ------------------------------------------------------------------------------------------- chunks with a phase

    def chunk(self, tree: Tree, phase: Tensor, size: int) -> tuple[Tree, Tensor]:
        """Cut every sequence into chunks of `size` whose borders go on from an earlier call.

        Args:
            tree: tensors (B, T, ...), rows or packed.
            phase: (N,) how many steps of its unfinished chunk each sequence has read before.

        Returns:
            Tensors (N, M, size, ...), each step in its slot, empty slots holding copies of some step; and (N, M, size)
            which slots hold a step.
        """
        rows = self.pad(tree)
        longest = self.length if self.cu_seqlens is None else self._longest()
        count = -(-(longest + size - 1) // size)
        slots = torch.arange(count * size, device=phase.device)
        steps = slots - phase.unsqueeze(1)
        real = (steps >= 0) & (steps < self.lengths(phase.device).unsqueeze(1))
        steps = steps.clamp(0, max(longest - 1, 0))
        row = torch.arange(self.batch, device=phase.device).unsqueeze(1)

        def cut(x: Tensor) -> Tensor:
            taken = x[row, steps] if longest else x.new_zeros(*steps.shape, *x.shape[2:])
            return taken.unflatten(1, (count, size))

        return pytree.tree_map(cut, rows), real.unflatten(1, (count, size))

    def unchunk(self, y: Tensor, phase: Tensor) -> Tensor:
        """The inverse of `chunk`: (N, M, size, ...) → (B, T, ...)."""
        longest = self.length if self.cu_seqlens is None else self._longest()
        steps = torch.arange(longest, device=phase.device) + phase.unsqueeze(1)
        row = torch.arange(self.batch, device=phase.device).unsqueeze(1)
        return self.unpad(y.flatten(1, 2)[row, steps])

    # ------------------------------------------------------------------------------------------------------ direction

    def reverse(self, x: Tensor) -> Tensor:
        """Every sequence back to front; its own inverse. Steps beyond the last sequence stay where they are."""
        if self.cu_seqlens is None:
            return x.flip(1)
        steps = torch.arange(self.length, device=self.cu_seqlens.device)
        owners = self.owners()[0]
        inside = owners.clamp(max=max(self.batch - 1, 0))
        mirrored = self.cu_seqlens[inside] + self.cu_seqlens[inside + 1] - 1 - steps
        return x[:, torch.where(owners < self.batch, mirrored, steps)] if self.batch else x


@dataclass(frozen=True, eq=False)
class Masked:
    """Rows of which only some steps count, brought to the packed form: the counting steps of all rows end to end.

    Args:
        sequence: the packed sequences, one for each row.
        order: (B·T,) where each packed step comes from.
        mask: (B, T) bool.
    """

    sequence: Sequence
    order: Tensor
    mask: Tensor

    @staticmethod
    def of(x: Tensor, mask: Tensor) -> Masked:
        if not isinstance(mask, torch.Tensor):
            raise InputError(f"`mask` is a {type(mask).__name__}; wanted a tensor of bool, True where a step counts.")
        if mask.dtype != torch.bool or mask.shape != x.shape[:2]:
            raise InputError(
                f"`mask` has shape {tuple(mask.shape)} and dtype {mask.dtype}; wanted {tuple(x.shape[:2])} bool, True "
                "where a step counts."
            )
        _demand_device("mask", mask, x)
        flat = mask.reshape(-1)
        order = torch.argsort(~flat, stable=True)
        ends = torch.cat([flat.new_zeros(1, dtype=torch.long), mask.sum(1).cumsum(0)])
        longest = mask.shape[1] if len(mask) else 0
        return Masked(Sequence(mask.shape[0], flat.shape[0], ends, longest=longest), order, mask)

    def pack(self, x: Tensor) -> Tensor:
        """(B, T, ...) → (1, B·T, ...); what is skipped lies beyond the end as zeros, so that no NaN of it is ever
        read."""
        packed = x.flatten(0, 1)[self.order]
        used = torch.arange(self.sequence.length, device=x.device) < self.sequence.cu_seqlens[-1]  # type: ignore[index]
        return torch.where(used.view(-1, *(1,) * (packed.dim() - 1)), packed, 0).unsqueeze(0)

    def unpack(self, y: Tensor) -> Tensor:
        """(1, B·T, ...) → (B, T, ...), zero at the skipped steps."""
        back = torch.empty_like(self.order)
        back[self.order] = torch.arange(self.order.shape[0], device=self.order.device)
        rows = y[0, back].unflatten(0, tuple(self.mask.shape))
        return torch.where(self.mask.view(*self.mask.shape, *(1,) * (rows.dim() - 2)), rows, 0)


def leading(tree: Any) -> Tensor:
    """The first tensor of a tree: it tells batch, time, device and dtype."""
    leaves = pytree.tree_leaves(tree)
    if not leaves:
        raise InputError("An input without tensors was given; wanted a tensor, or a nest of them, with leading (B, T).")
    return leaves[0]
