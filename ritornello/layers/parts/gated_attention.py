"""The gated attention of MEGA: one head, in chunks, between gates that read a moving average."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError, nearest
from ritornello.layers.base import Call, Leaf, at_least
from ritornello.layers.parts.rotary import angles, turn
from ritornello.layers.parts.tags import NO_WEIGHT_DECAY
from ritornello.sequence import Sequence
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["GatedAttention", "laplace"]

FUNCTIONS = ("softmax", "laplace")
POSITIONS = ("rotary", "simple")
STD = 0.02  # of all that is drawn, as the authors do


def laplace(x: Tensor) -> Tensor:
    """½ (1 + erf((x − √½) / (σ √2))), σ = 1 / √(4π): a smooth step that is near relu(x)² where that is below 1."""
    return 0.5 * (1 + torch.erf((x - 0.5**0.5) * (2 * math.pi) ** 0.5))


class RelativeBias(nn.Module):
    """What is added to the score of a key that lies d steps back, 0 ≤ d < `length`: a number for each d ("simple"), or
    Re(Σ_i a_i b̄_i e^{i θ_i d}) with θ_i = 10000^{−2i/K} and complex a, b of K / 2 numbers ("rotary").

    Source: Ma et al. 2022, arXiv:2209.10655; as in the authors' code, without its numbers for keys that lie ahead.
    """

    def __init__(self, kind: str, positions: str, length: int, size: int):
        super().__init__()
        if positions not in POSITIONS:
            raise InputError(f"`positions` of {kind} is {positions!r}. {nearest(str(positions), POSITIONS)}")
        if positions == "rotary" and size % 2:
            raise InputError(f"`key_size` of {kind} is {size}; rotary positions turn pairs of channels: wanted even.")
        self.length = length
        shape = (length,) if positions == "simple" else (2, size)
        self.weight = nn.Parameter(STD * torch.randn(shape))

    def forward(self, dtype: torch.dtype, carry: dict[str, Any]) -> Tensor:
        """(length,), by distance."""
        weight = self.weight.to(dtype)
        if weight.dim() == 1:
            return weight
        a, b = weight
        key = f"angles of {a.shape[0]} over {self.length}, {dtype}"  # the same for all layers of a model
        if key not in carry:
            steps = torch.arange(self.length, device=weight.device).unsqueeze(0)
            carry[key] = angles(steps, a.shape[0], 10_000.0, dtype)
        return (turn(a.expand(1, self.length, 1, -1), *carry[key])[0, :, 0] * b).sum(-1)


class GatedAttention(nn.Module):
    """z = silu(W_z m + b_z), q = κ_q ⊙ z + μ_q, k = κ_k ⊙ z + μ_k, v = silu(W_v x + b_v); in chunks of `chunk_size`
    steps, o_t = Σ_s f(q_t · k_s / τ_t + bias_{t−s}) v_s over the s ≤ t of the chunk of t;
    y = u ⊙ silu(W_h m + b_h + U (r ⊙ o) + b) + (1 − u) ⊙ x, r = silu(W_r m + b_r), u = σ(W_u m + b_u).

    f is a softmax, with τ = √K, or `laplace` of each score for itself, with τ_t = how many keys t sees. The state holds
    the keys and values of the chunk that is not yet full, from its start on, and how many they are.

    Args:
        kind: of the layer, for messages.
        width: of x, of the moving average m that gates, queries and keys read, and of y.
        key_size: K, of z; a quarter of the width, even, where None.
        value_size: of v; twice the width where None.
        chunk_size: steps of a chunk.
        function: ``"softmax"`` or ``"laplace"``.
        positions: of the bias, ``"rotary"`` or ``"simple"``.

    Source: Ma et al. 2022, arXiv:2209.10655, sections 3.2 to 3.4, and the authors' code.
    """

    tags: ClassVar = {"qk_scale": (NO_WEIGHT_DECAY,), "qk_shift": (NO_WEIGHT_DECAY,), "bias.weight": (NO_WEIGHT_DECAY,)}

    def __init__(
        self,
        kind: str,
        width: int,
        key_size: int | None,
        value_size: int | None,
        chunk_size: int,
        function: str,
        positions: str,
    ):
        super().__init__()
        key_size = 2 * max(width // 8, 1) if key_size is None else key_size
        value_size = 2 * width if value_size is None else value_size
        at_least(1, kind, key_size=key_size, value_size=value_size)
        at_least(2, kind, chunk_size=chunk_size)
        if function not in FUNCTIONS:
            raise InputError(f"`function` of {kind} is {function!r}. {nearest(str(function), FUNCTIONS)}")
        self.key_size, self.value_size, self.chunk_size, self.function = key_size, value_size, chunk_size, function
        self.splits = [width, key_size, value_size, width]  # u, z, r, and what o is added to
        self.gates_proj = nn.Linear(width, sum(self.splits))
        self.v_proj = nn.Linear(width, value_size)
        self.read_proj = nn.Linear(value_size, width)
        self.qk_scale = nn.Parameter(STD * torch.randn(2, key_size))
        self.qk_shift = nn.Parameter(torch.zeros(2, key_size))
        self.bias = RelativeBias(kind, positions, chunk_size, key_size)
        for linear in (self.gates_proj, self.v_proj, self.read_proj):
            nn.init.normal_(linear.weight, 0.0, STD)
            nn.init.zeros_(linear.bias)

    @property
    def sizes(self) -> dict[str, int]:
        """What the state depends on, by the names of a layer's options."""
        return {"key_size": self.key_size, "value_size": self.value_size, "chunk_size": self.chunk_size}

    def leaves(self) -> dict[str, Leaf]:
        kept = self.chunk_size - 1
        return {
            "k": Leaf((kept, self.key_size), "input"),
            "v": Leaf((kept, self.value_size), "input"),
            "phase": Leaf((), "index"),
        }

    def canonical(self, leaves: Mapping[str, Any]) -> dict[str, Any]:
        """Its leaves, with zeros where no step was kept."""
        phase = leaves["phase"]
        kept = (torch.arange(self.chunk_size - 1, device=phase.device) < phase.unsqueeze(1)).unsqueeze(-1)
        return {"k": torch.where(kept, leaves["k"], 0), "v": torch.where(kept, leaves["v"], 0), "phase": phase}

    def forward(
        self, x: Tensor, m: Tensor, state: Mapping[str, Tensor], call: Call
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """x and m (B, T, width) → y (B, T, width), and the leaves of the new state."""
        update, z, reset, candidate = self.gates_proj(m).split(self.splits, -1)
        z = F.silu(z)
        scale, shift = self.qk_scale.to(z.dtype), self.qk_shift.to(z.dtype)
        q, k = z * scale[0] + shift[0], z * scale[1] + shift[1]
        o, new = self._read(q, k, F.silu(self.v_proj(x)), state, call)
        candidate = F.silu(candidate + self.read_proj(o * F.silu(reset)))
        return torch.lerp(x, candidate.to(x.dtype), torch.sigmoid(update).to(x.dtype)), new

    def _read(self, q: Tensor, k: Tensor, v: Tensor, state: Mapping[str, Any], call: Call) -> tuple[Tensor, dict]:
        sequence, phase, size = call.sequence, state["phase"], self.chunk_size
        if sequence.length < size and sequence.cu_seqlens is None:
            # Fewer steps than slots, perhaps one: each looks at all slots and sees those of its chunk.
            own = phase.unsqueeze(1) + torch.arange(sequence.length, device=phase.device)
            k, v = self._placed(k, state["k"], own), self._placed(v, state["v"], own)
            o = self._attend(q, k, v, own, call.carry)
            k, v = k.unflatten(1, (-1, size)), v.unflatten(1, (-1, size))
        else:
            k, v = self._chunked(k, state["k"], phase, sequence), self._chunked(v, state["v"], phase, sequence)
            slot = torch.arange(size, device=phase.device)
            o = self._attend(sequence.chunk(q, phase, size)[0], k, v, slot, call.carry)
            o = sequence.unchunk(o, phase)
        reached = sequence.after(phase)
        if k.shape[1] == 1:  # what a full chunk leaves behind is not looked at: no need to choose, or to copy
            kept = {"k": k[:, 0, :-1], "v": v[:, 0, :-1]}
        else:
            row, last = torch.arange(k.shape[0], device=k.device), (reached // size).clamp(max=k.shape[1] - 1)
            kept = {"k": k[row, last, :-1], "v": v[row, last, :-1]}
        return o, {**kept, "phase": reached % size}

    def _placed(self, new: Tensor, old: Tensor, places: Tensor) -> Tensor:
        """The slots of one chunk or two, (N, S, ·), with the steps of earlier calls and the new ones."""
        slots = self.chunk_size * (1 if new.shape[1] == 1 else 2)
        room = F.pad(old.to(new.dtype), (0, 0, 0, slots - old.shape[1]))
        row = torch.arange(new.shape[0], device=new.device).unsqueeze(1)
        return room.index_put_((row, places), new)

    def _chunked(self, new: Tensor, old: Tensor, phase: Tensor, sequence: Sequence) -> Tensor:
        """(N, M, size, ·), with the steps of earlier calls in the first slots."""
        cut = sequence.chunk(new, phase, self.chunk_size)[0]
        begun = torch.arange(self.chunk_size, device=phase.device) < phase.unsqueeze(1)
        first = torch.where(begun.unsqueeze(-1), F.pad(old.to(new.dtype), (0, 0, 0, 1)), cut[:, 0])
        return torch.cat([first.unsqueeze(1), cut[:, 1:]], 1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, own: Tensor, carry: dict[str, Any]) -> Tensor:
        """q (..., L, K) in the slots `own` (..., L), k and v (..., S, ·) in the slots 0 … S − 1 → (..., L, ·). A slot
        sees those of its chunk up to itself."""
        slot, wide = torch.arange(k.shape[-2], device=q.device), accumulation_dtype(q.dtype)
        back, own = own.unsqueeze(-1) - slot, own.unsqueeze(-1)
        seen = (back >= 0) & (back <= own % self.chunk_size)
        bias = self.bias(wide, carry)[back.clamp(0, self.chunk_size - 1)]
        scores = (q @ k.mT).to(wide)
        if self.function == "softmax":
            weights = (scores * self.key_size**-0.5 + bias).masked_fill(~seen, float("-inf")).softmax(-1)
        else:
            weights = laplace(scores / (own % self.chunk_size + 1) + bias) * seen
        return weights.to(v.dtype) @ v
