"""Residual blocks in a pattern: what all models share, whatever they read and predict.

Everything here has the two verbs of a layer, ``advance(x, state, call)`` and ``initial_state(batch, like)``, so that
blocks nest. Masks are packed by the model, once; one `Call` goes through all blocks, and its `carry` with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello import state as states
from ritornello.errors import StateError
from ritornello.layers import Call, Layer, build
from ritornello.layers.parts.norm import RMSNorm
from ritornello.models.config import Entry, ModelConfig, Parallel, Repeat
from ritornello.models.place import placed
from ritornello.state import State
from ritornello.typing import Tensor, accumulation_dtype

__all__ = ["Backbone", "Block", "ParallelMixers", "RepeatedBlocks", "describe"]

VERSION = 1


class LayerNorm(nn.Module):
    """LayerNorm in the dtype of x, whatever that of its weight: a float32 stream meets bf16 weights."""

    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight, self.bias, self.eps = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def norm_of(config: ModelConfig) -> RMSNorm | LayerNorm:
    """The norm of a model's residual stream."""
    if config.norm == "layer_norm":
        return LayerNorm(config.width, config.norm_eps)
    return RMSNorm(config.width, config.norm_eps, zero_centred=config.norm == "zero_centred_rms_norm")


class ParallelMixers(nn.Module):
    """Mixers on the same input, their outputs averaged or summed."""

    def __init__(self, node: Parallel, width: int):
        super().__init__()
        self.mixers: Any = nn.ModuleList(_layer(m, width) for m in node.mixers)
        self.share = 1 / len(self.mixers) if node.combine == "mean" else 1.0

    def advance(self, x: Tensor, state: State | None, call: Call) -> tuple[Tensor, State]:
        outputs, leaves = [], {}
        for i, mixer in enumerate(self.mixers):
            y, leaves[str(i)] = call.enter(mixer, x, part(state, str(i)))
            outputs.append(y)
        return sum(outputs[1:], outputs[0]) * self.share, State("parallel", VERSION, {}, leaves)

    def initial_state(self, batch: int, like: Tensor) -> State:
        leaves = {str(i): m.initial_state(batch, like) for i, m in enumerate(self.mixers)}
        return State("parallel", VERSION, {}, leaves)


class Block(nn.Module):
    """x ← x + mixer(norm(x)); x ← x + ffn(norm(x)); or normed after: x ← x + norm(mixer(x)); x ← x + norm(ffn(x))."""

    def __init__(self, entry: Entry, ffn: Entry | None, config: ModelConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout) if config.dropout else nn.Identity()
        self.norm_after = describe(entry) in config.norm_after
        self.mixer_norm = norm_of(config)
        self.mixer = ParallelMixers(entry, config.width) if isinstance(entry, Parallel) else _layer(entry, config.width)
        self.ffn_norm, self.ffn = None, None
        if ffn is not None:
            self.ffn_norm, self.ffn = norm_of(config), _layer(ffn, config.width)

    def advance(self, x: Tensor, state: State | None, call: Call) -> tuple[Tensor, State]:
        leaves = {}
        x, leaves["mixer"] = self._add(x, self.mixer_norm, self.mixer, part(state, "mixer"), call)
        if self.ffn is not None:
            x, leaves["ffn"] = self._add(x, self.ffn_norm, self.ffn, part(state, "ffn"), call)
        return x, State("block", VERSION, {}, leaves)

    def _add(self, x: Tensor, norm: Any, layer: Any, state: State | None, call: Call) -> tuple[Tensor, State]:
        read = x if self.norm_after else norm(x)
        y, new = call.enter(layer, read.to(self._input_dtype(x)), state)
        return x + self.dropout(norm(y) if self.norm_after else y), new

    def working_dtype(self) -> torch.dtype:
        """What the layers compute in: their weights' dtype, also where the residual stream is wider."""
        return self.mixer_norm.weight.dtype

    def _input_dtype(self, x: Tensor) -> torch.dtype:
        """What the layers read. Autocast's dtype under autocast: cast here once, not by every projection for itself."""
        working, device = self.working_dtype(), x.device.type
        if working == torch.float32 and torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
        return working

    def initial_state(self, batch: int, like: Tensor) -> State:
        like = like.to(self.working_dtype())
        leaves = {"mixer": self.mixer.initial_state(batch, like)}
        if self.ffn is not None:
            leaves["ffn"] = self.ffn.initial_state(batch, like)
        return State("block", VERSION, {}, leaves)


class RepeatedBlocks(nn.Module):
    """Blocks run n times over: the weights are shared, the states are not."""

    def __init__(self, node: Repeat, ffn: Entry | None, config: ModelConfig):
        super().__init__()
        self.n = node.n
        self.blocks: Any = nn.ModuleList(_block(e, ffn, config) for e in node.blocks)

    def advance(self, x: Tensor, state: State | None, call: Call) -> tuple[Tensor, State]:
        leaves = {}
        for name, block in self._runs():
            x, leaves[name] = block.advance(x, part(state, name), call)
        return x, State("repeat", VERSION, {}, leaves)

    def initial_state(self, batch: int, like: Tensor) -> State:
        return State("repeat", VERSION, {}, {name: block.initial_state(batch, like) for name, block in self._runs()})

    def _runs(self) -> Iterable[tuple[str, Any]]:
        return ((f"{turn}.{i}", block) for turn in range(self.n) for i, block in enumerate(self.blocks))


class Backbone(nn.Module):
    """The blocks of a config, and the norms before and after all of them.

    The state's leaves are ``position``, (B,) how many steps each row has read, and a State for each entry.
    """

    def __init__(self, config: ModelConfig, kind: str = "backbone"):
        super().__init__()
        self.kind = kind
        mixers, ffns = placed(config.entries()), placed(config.feed_forwards())
        halved = [config.halved(i) for i in range(len(mixers) + 1)]
        self.blocks: Any = nn.ModuleList(map(_block, mixers, ffns, halved))
        self.embedding_norm = norm_of(config) if config.embedding_norm else None
        self.final_norm = norm_of(halved[-1]) if config.final_norm else None
        self.residual_float32 = config.residual_float32
        self.spec = {"width": config.width, "layers": ", ".join(describe(e) for e in config.entries())}

    def advance(self, x: Tensor, state: State | None, call: Call) -> tuple[Tensor, State]:
        """x (B, T, width) → hidden (B, T, width), zero beyond the last packed sequence, and the new state."""
        sequence, dtype = call.sequence, x.dtype
        if state is not None:
            states.check(state, self.kind, VERSION, self.spec, sequence.batch)
        before = part(state, "position")
        leaves: dict[str, Any] = {"position": sequence.lengths(x.device) if before is None else sequence.after(before)}
        if self.residual_float32:
            x = x.to(accumulation_dtype(dtype))
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        for i, block in enumerate(self.blocks):
            x, leaves[str(i)] = block.advance(x, part(state, str(i)), call)
        if self.final_norm is not None:
            x = self.final_norm(x)
        x = sequence.clear_unused(x)
        return x.to(dtype), State(self.kind, VERSION, self.spec, leaves)

    def initial_state(self, batch: int, like: Tensor) -> State:
        """The state before anything was read; `like` tells device and dtype."""
        leaves: dict[str, Any] = {"position": torch.zeros(batch, dtype=torch.long, device=like.device)}
        leaves |= {str(i): block.initial_state(batch, like) for i, block in enumerate(self.blocks)}
        return State(self.kind, VERSION, self.spec, leaves)


def describe(entry: Entry) -> str:
    """An entry in words: ``gla``, ``parallel(attention mamba2)``, ``repeat(3 gla attention)``."""
    if isinstance(entry, Parallel):
        return f"parallel({' '.join(describe(m) for m in entry.mixers)})"
    if isinstance(entry, Repeat):
        return f"repeat({entry.n} {' '.join(describe(b) for b in entry.blocks)})"
    return entry if isinstance(entry, str) else entry[0]


def part(state: State | None, name: str) -> Any:
    """A leaf of the state; None where there is no state."""
    if state is None:
        return None
    if name not in state.leaves:
        raise StateError(
            f"`state` of {state.kind!r} has no part {name!r}; it has {', '.join(state.leaves) or 'none'}. Pass the "
            "state that this model returned, or None to start."
        )
    return state.leaves[name]


def _layer(entry: Any, width: int) -> Layer:
    name, options = (entry, {}) if isinstance(entry, str) else entry
    return build(name, width, **options)


def _block(entry: Any, ffn: Entry | None, config: ModelConfig) -> nn.Module:
    return RepeatedBlocks(entry, ffn, config) if isinstance(entry, Repeat) else Block(entry, ffn, config)
