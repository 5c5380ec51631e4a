"""The sequence model: ids or floats in, scores or floats out, a backbone between."""

from __future__ import annotations

import math
from typing import Any

from torch import nn

from ritornello.errors import InputError
from ritornello.layers import Call
from ritornello.layers.base import as_seen, demand_alike
from ritornello.method import Method
from ritornello.models import weights
from ritornello.models.backbone import Backbone
from ritornello.models.config import ModelConfig
from ritornello.models.ids import demand_ids, unknown
from ritornello.state import State
from ritornello.typing import Tensor

__all__ = ["SequenceModel"]


class SequenceModel(nn.Module):
    """y_t = W norm(blocks(E x_t)) + c at every step: classes to choose among, or numbers to predict.

        model = SequenceModel(ModelConfig(vocab_size=2, width=64, pattern="lstm", depth=2), outputs=2)
        y, state = model(ids)                        # (B, T, 2)

    Args:
        config: what it is made of; `tied_embeddings` does not apply.
        outputs: classes, or numbers a step.
        features: of x where it is floats (B, T, features), which E projects; None: x is ids (B, T), which E embeds.

    Raises:
        InputError: a layer that cannot be built at that width.
    """

    kind = "sequence_model"

    def __init__(self, config: ModelConfig, outputs: int, features: int | None = None):
        super().__init__()
        self.config, self.features = config, features
        width = config.width
        self.embedding = nn.Embedding(config.vocab_size, width) if features is None else nn.Linear(features, width)
        self.backbone = Backbone(config, self.kind)
        self.head = nn.Linear(width, outputs)
        weights.initialise(self, config.init_std, sum(1 for _ in config.blocks()))
        if features is not None:  # floats of about unit size: the stream begins at their scale
            nn.init.normal_(self.embedding.weight, std=features**-0.5)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        method: Method | None = None,
        donate: bool = False,
    ) -> tuple[Tensor, State]:
        """y (B, T, outputs), zero where `mask` is False, and the state after them; arguments as of a layer."""
        hidden, new = self.hidden(x, state, mask=mask, cu_seqlens=cu_seqlens, method=method, donate=donate)
        y = self.head(hidden)
        return (y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0)), new

    def hidden(
        self,
        x: Tensor,
        state: State | None = None,
        *,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        method: Method | None = None,
        donate: bool = False,
    ) -> tuple[Tensor, State]:
        """What `head` reads, (B, T, width): for those who need the outputs of a few steps only.

        Raises:
            InputError: x of another shape or dtype, ids beyond the vocabulary, or `mask` with `cu_seqlens`.
            StateError: a state of another model, version or batch.
        """
        self._check(x)
        x, call, masked = as_seen(x, mask, cu_seqlens, method, donate)
        hidden, new = self.backbone.advance(self._embed(x), state, call)
        return (hidden if masked is None else masked.unpack(hidden)), new

    def read(self, x: Tensor, state: State | None, call: Call) -> tuple[Tensor, State]:
        """`forward` for what has been checked."""
        hidden, new = self.backbone.advance(self.embedding(x), state, call)
        return self.head(hidden), new

    def initial_state(self, batch: int) -> State:
        """The state before anything was read, for `batch` sequences."""
        return self.backbone.initial_state(batch, self.head.weight)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The parameters for an optimiser: with `weight_decay`, and without (norms, biases, embeddings, tagged)."""
        return weights.parameter_groups(self, weight_decay)

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(math.prod(p.shape) for p in self.parameters())

    def _check(self, x: Tensor) -> None:
        weight = self.embedding.weight
        if self.features is None:
            demand_ids("x", x, weight)
            return
        fits = isinstance(x, Tensor) and x.dim() == 3 and x.shape[-1] == self.features
        if not fits or not x.is_floating_point():
            got = f"{tuple(x.shape)} {x.dtype}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise InputError(f"`x` is {got}; wanted (B, T, {self.features}) floats.")
        demand_alike(self.kind, x, weight)

    def _embed(self, x: Tensor) -> Tensor:
        try:
            return self.embedding(x)
        except IndexError:
            raise unknown("x", x, self.config.vocab_size) from None
