"""The language model: embeddings, a backbone, logits; with a loss, a stream and a state."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.errors import InputError
from ritornello.layers import Call, Layer
from ritornello.layers.base import as_seen
from ritornello.layers.parts.activations import soft_cap
from ritornello.layers.parts.routing import NOTED, Route, load_balance
from ritornello.method import Method
from ritornello.models import weights
from ritornello.models.backbone import Backbone
from ritornello.models.config import ModelConfig
from ritornello.models.ids import IDS, demand_ids, unknown
from ritornello.models.loss import IGNORE, chunked_cross_entropy, next_ids
from ritornello.models.stream import Stream, TextStream
from ritornello.models.tokens import ByteTokenizer, Tokenizer
from ritornello.sequence import Masked, Sequence
from ritornello.state import State
from ritornello.typing import Tensor

__all__ = ["LanguageModel"]

LOGITS = ("all", "last", "none")


class LanguageModel(nn.Module):
    """p(id_{t+1} | id_1 … id_t) = softmax(W norm(blocks(E id_t))).

        model = rt.LanguageModel(rt.ModelConfig(vocab_size=256, width=128, pattern="gated_delta_net", depth=4))
        logits, state = model(ids)                   # (B, T, 256), and what goes on from there
        loss = model.loss(ids)
        for ids in model.stream(prompt): ...

    Args:
        config: what it is made of.
        tokens: what turns text to ids and back; bytes where None and the vocabulary has 256.

    Raises:
        InputError: a layer that cannot be built at that width, or one that reads from the future.
    """

    kind = "language_model"

    def __init__(self, config: ModelConfig, tokens: Tokenizer | None = None):
        super().__init__()
        if not isinstance(config, ModelConfig):
            raise InputError(f"`config` is a {type(config).__name__}; wanted a ritornello.ModelConfig.")
        self.config = config
        self.tokens = ByteTokenizer() if tokens is None and config.vocab_size == ByteTokenizer.vocab_size else tokens
        self.origin: dict[str, Any] = {}  # what the checkpoint it came from says beyond the config: special ids, ...
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.backbone = Backbone(config, self.kind)
        self.head = None if config.tied_embeddings else nn.Linear(config.width, config.vocab_size, bias=False)
        for layer in self.modules():
            if isinstance(layer, Layer) and not layer.traits.causal:
                raise InputError(
                    f"Layer {layer.kind!r} (direction {layer.direction!r}) reads from the future, which a language "
                    "model predicts. Choose a causal layer, with direction 'forward'."
                )
        weights.initialise(self, config.init_std, sum(1 for _ in config.blocks()))

    # ------------------------------------------------------------------------------------------------------- forward

    def forward(
        self,
        ids: Tensor,
        state: State | None = None,
        *,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        logits: str = "all",
        method: Method | None = None,
        donate: bool = False,
    ) -> tuple[Tensor, State]:
        """Read `ids` and predict what follows each.

        Args:
            ids: (B, T) integers.
            state: what an earlier call returned, to continue it; None to start.
            mask: (B, T) bool; an id where it is False is skipped, as if it were not there, and its logits are zero.
            cu_seqlens: (N + 1,) the bounds of N sequences packed along time with B = 1; the state's batch is N.
            logits: ``"all"`` (B, T, vocab); ``"last"`` (B, vocab), after each row's last id that counts (with
                `cu_seqlens` (N, vocab); zero for a row without ids); ``"none"``: the hidden (B, T, width) that the
                output weights would read.
            method: how to run the layers; ``rt.Auto()`` where None.
            donate: the state is given away and may be written in place.

        Raises:
            InputError: ids beyond the vocabulary, shapes that do not fit, or `mask` with `cu_seqlens`.
            StateError: a state of another model, version or batch.
            BackendError: a method that cannot run one of the layers.
        """
        if logits not in LOGITS:
            raise InputError(f"`logits` is {logits!r}; it takes 'all', 'last' or 'none'.")
        ids, call, masked = self._prepare(ids, mask, cu_seqlens, method, donate)
        if logits == "last":
            return self.read(ids, state, call)
        hidden, new = self.backbone.advance(self._embed(ids), state, call)
        if masked is not None:
            hidden = masked.unpack(hidden)
        return (hidden if logits == "none" else self._logits(hidden)), new

    if TYPE_CHECKING:
        # nn.Module's own is declared to return Any.
        def __call__(self, *args: Any, **kwargs: Any) -> tuple[Tensor, State]: ...

    def loss(
        self,
        ids: Tensor,
        targets: Tensor | None = None,
        state: State | None = None,
        *,
        mask: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        method: Method | None = None,
        reduction: str = "mean",
        return_state: bool = False,
        balance: float = 0.0,
    ) -> Any:
        """The cross-entropy in nats of predicting `targets`, computed in chunks: (B, T, vocab) is never kept.

        Args:
            ids: (B, T) integers.
            targets: (B, T) the id that follows each; −100 where a step does not count. Where None, each sequence is its
                own target, one step on.
            state, mask, cu_seqlens, method: as in `forward`.
            reduction: ``"mean"`` over the steps that count, or ``"sum"``.
            return_state: also return the state, for training that carries it from window to window
                (``rt.state.detach`` it between them).
            balance: how much of the `load_balance` of the model's routers is added, for each step that counts; 0.001 to
                0.01 is usual. Models without routers (`moe`, `mom`) have none.

        Returns:
            A scalar, or (scalar, State).
        """
        if reduction not in ("mean", "sum"):
            raise InputError(f"`reduction` is {reduction!r}; it takes 'mean' or 'sum'.")
        ids, call, masked = self._prepare(ids, mask, cu_seqlens, method, donate=False)
        shape = ids.shape if masked is None else masked.mask.shape
        if targets is not None:
            _check_targets(targets, shape, ids.device)
        if targets is None:
            targets = next_ids(ids, call.sequence)
        else:
            targets = targets.long() if masked is None else masked.pack(targets.long())
            targets = _beyond_end(targets, call.sequence)
        routes: list[Route] = []
        if balance:
            call.carry[NOTED] = routes
        hidden, new = self.backbone.advance(self._embed(ids), state, call)
        flat = targets.reshape(-1)
        try:
            loss = chunked_cross_entropy(hidden.flatten(0, 1), flat, self._logits, self.config.vocab_size)
        except IndexError:
            raise unknown("targets", flat[flat != IGNORE], self.config.vocab_size) from None
        count = (flat != IGNORE).sum().clamp(min=1)
        if balance:
            loss = loss + balance * count * self._balance(routes)
        if reduction == "mean":
            loss = loss / count
        return (loss, new) if return_state else loss

    def read(self, ids: Tensor, state: State | None, call: Call) -> tuple[Tensor, State]:
        """`forward` with ``logits="last"``, for ids that have been checked and packed."""
        hidden, new = self.backbone.advance(self._embed(ids), state, call)
        return self._logits(_last(hidden, call.sequence)), new

    def initial_state(self, batch: int) -> State:
        """The state before anything was read, for `batch` sequences."""
        return self.backbone.initial_state(batch, self.embedding.weight)

    def _prepare(self, ids, mask, cu_seqlens, method, donate) -> tuple[Tensor, Call, Masked | None]:
        """The ids as the layers see them, and the one call for all of those."""
        demand_ids("ids", ids, self.embedding.weight)
        return as_seen(ids, mask, cu_seqlens, method, donate)

    def _embed(self, ids: Tensor) -> Tensor:
        try:
            x = self.embedding(ids)
        except IndexError:
            raise unknown("ids", ids, self.config.vocab_size) from None
        return x if self.config.embedding_scale is None else x * self.config.embedding_scale

    @staticmethod
    def _balance(routes: list[Route]) -> Tensor:
        if not routes:
            raise InputError("`balance` was given, but none of the model's layers has a router, as moe and mom do.")
        return load_balance(routes)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = F.linear(hidden, self.embedding.weight) if self.head is None else self.head(hidden)
        return soft_cap(logits, self.config.logits_soft_cap)

    # ----------------------------------------------------------------------------------------------------- streaming

    def stream(
        self,
        ids: Tensor,
        state: State | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: torch.Generator | None = None,
        stop: int | Iterable[int] = (),
        mask: Tensor | None = None,
    ) -> Stream:
        """Read the prompt and go on without end: an iterator of ids (B,), with the `state` of what was read.

        Args:
            ids: (B, T) the prompt, at least one id a row; after a stream, its `unread`.
            state: what came before the prompt; it is not read again, and not changed.
            max_new_tokens: how many steps; no end where None.
            temperature: what the logits are divided by; 0 takes the likeliest id.
            top_k: choose among the k likeliest ids.
            top_p: choose among the fewest ids that hold this probability.
            generator: of the random numbers; PyTorch's own where None.
            stop: ids after which a row ends. It then yields its last id again, until all rows have ended.
            mask: (B, T) bool, for prompts of different length.
        """
        return Stream(
            self, ids, state, mask, max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p,
            generator=generator, stop=stop,
        )  # fmt: skip

    def stream_text(self, prompt: str | bytes | Tensor, state: State | None = None, **options: Any) -> TextStream:
        """`stream` as text: an iterator of strings, with `state` and `unread` as there.

        Args:
            prompt: text, bytes, or ids (1, T).
            state: what came before the prompt.
            options: those of `stream`.
        """
        if self.tokens is None:
            raise InputError(
                f"This model has {self.config.vocab_size} tokens and nothing that turns text to them. Give "
                "LanguageModel(config, tokens=...), or use `stream` with ids."
            )
        if not isinstance(prompt, torch.Tensor):
            device = self.embedding.weight.device
            prompt = torch.tensor([self.tokens.encode(prompt)], dtype=torch.long, device=device)
        return TextStream(self.stream(prompt, state, **options), self.tokens)

    # ------------------------------------------------------------------------------------------------------- weights

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """The parameters for an optimiser: with `weight_decay`, and without (norms, biases, embeddings, tagged)."""
        return weights.parameter_groups(self, weight_decay)

    def to_dtype(self, dtype: torch.dtype) -> LanguageModel:
        """The weights in `dtype`, in place, but for those that must stay float32 (decays)."""
        weights.to_dtype(self, dtype)
        return self

    @property
    def parameter_count(self) -> int:
        """How many numbers are trained; tied weights count once."""
        return sum(math.prod(p.shape) for p in self.parameters())


def _check_targets(targets: Tensor, shape: torch.Size, device: torch.device) -> None:
    if not isinstance(targets, torch.Tensor) or targets.shape != shape or targets.dtype not in IDS:
        is_tensor = isinstance(targets, torch.Tensor)
        got = f"{tuple(targets.shape)} {targets.dtype}" if is_tensor else f"a {type(targets).__name__}"
        raise InputError(
            f"`targets` is {got}; wanted a tensor of integers, int64, of the shape of `ids`, {tuple(shape)}."
        )
    if targets.device != device:
        raise InputError(f"`targets` is on {targets.device}, and `ids` on {device}. Move one of them.")


def _last(hidden: Tensor, sequence: Sequence) -> Tensor:
    """(N, width) the hidden after each sequence's last step; zero where it has none."""
    if sequence.cu_seqlens is None:
        return hidden[:, -1] if sequence.length else hidden.new_zeros(sequence.batch, hidden.shape[-1])
    if sequence.length == 0:
        return hidden.new_zeros(sequence.batch, hidden.shape[-1])
    rows = hidden[0, (sequence.cu_seqlens[1:] - 1).clamp(min=0)]
    return torch.where(sequence.lengths().unsqueeze(-1) > 0, rows, 0)


def _beyond_end(targets: Tensor, sequence: Sequence) -> Tensor:
    """The targets, with IGNORE beyond the last packed sequence."""
    if sequence.cu_seqlens is None:
        return targets
    beyond = torch.arange(sequence.length, device=targets.device) >= sequence.cu_seqlens[-1]
    return targets.masked_fill(beyond, IGNORE)
