"""Our models under the LM evaluation harness: ``--model ritornello``.

    python -m ritornello.hub.lm_eval --model ritornello --model_args pretrained=FOLDER --tasks arc_easy,lambada_openai

Importing this module registers the name; nothing else imports it. A context is read once, whatever the number of its
continuations: its state is forked. A text of any length is scored as one, a window at a time, with its whole past.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional as F

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    raise ImportError(
        f"`ritornello.hub.lm_eval` needs the package lm_eval ({error}). Run: pip install 'ritornello[eval]'"
    ) from None

from ritornello import hub
from ritornello import state as states
from ritornello.errors import InputError
from ritornello.models import LanguageModel
from ritornello.state import State
from ritornello.typing import Tensor

__all__ = ["RitornelloLM", "main"]

WINDOW = 2048
"""Steps that are read at once."""
LONGEST = 256
"""Tokens of an answer where the task does not say."""

Score = tuple[float, bool]


@register_model("ritornello")
class RitornelloLM(TemplateLM):
    """A checkpoint that ``rt.load`` reads, as a model of the harness.

    Args:
        pretrained: a folder, an id on the hub, or a `LanguageModel`.
        batch_size: how many continuations of a context are read at once.
        device, dtype: of the weights; as saved where `dtype` is None.
        prefix: the id that stands before a text without a context; that of the checkpoint's config, or of a newline.
    """

    def __init__(
        self,
        pretrained: str | LanguageModel,
        batch_size: int | str = 16,
        device: str | None = None,
        dtype: str | None = None,
        prefix: int | None = None,
        **_: Any,
    ):
        super().__init__()
        self._device = torch.device(device or "cpu")
        if isinstance(pretrained, LanguageModel):
            self.model = pretrained.to(self._device).eval()
        else:
            self.model = hub.load(pretrained, self._device, getattr(torch, dtype) if dtype else None)
        if self.model.tokens is None:
            raise InputError("The model has nothing that turns text to ids: put its tokenizer.json beside config.json.")
        self.tokens = self.model.tokens
        self.batch_size = int(batch_size) if str(batch_size).isdigit() else 16
        special = (self.model.origin.get(name) for name in ("bos_token_id", "eos_token_id"))
        known = next((i for i in (prefix, *special) if isinstance(i, int)), None)
        self.prefix = self.tokens.encode("\n")[-1] if known is None else known

    # ------------------------------------------------------------------------------------------------------ the tokens

    @property
    def eot_token_id(self) -> int:
        return self.prefix

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.tokens.encode(string)

    # ------------------------------------------------------------------------------------------------------- the three

    @torch.no_grad()
    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, **_: Any) -> list[Score]:
        """The log probability of each continuation, and whether each of its ids is the likeliest."""
        together: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for place, (_, context, _) in enumerate(requests):
            together[tuple(context)].append(place)
        scores: list[Score] = [(0.0, True)] * len(requests)
        for context, places in together.items():
            last, state = self._read(list(context))
            for start in range(0, len(places), self.batch_size):
                some = places[start : start + self.batch_size]
                found = self._continuations(last, state, [requests[i][2] for i in some])
                for place, score in zip(some, found, strict=True):
                    scores[place] = score
        return scores

    @torch.no_grad()
    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """The log probability of each text as a whole."""
        return [self._text(self.tok_encode(request.args[0])) for request in requests]

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        """What each context goes on with, up to one of the strings that end it."""
        return [self._answer(*request.args) for request in requests]

    # ------------------------------------------------------------------------------------------------------------ parts

    def _ids(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], dtype=torch.long, device=self._device)

    def _read(self, ids: list[int]) -> tuple[Tensor, State]:
        """The logits (1, vocab) after some ids, read a window at a time, and the state."""
        logits, state = torch.empty(0), None
        for window in self._ids(ids).split(WINDOW, 1):
            logits, state = self.model(window, state, logits="last")
        assert state is not None
        return logits, state

    def _continuations(self, last: Tensor, state: State, continuations: list[list[int]]) -> Iterator[Score]:
        """The scores of some continuations of what was read, side by side."""
        count, longest = len(continuations), max(len(c) for c in continuations)
        ids = torch.zeros(count, longest, dtype=torch.long, device=self._device)
        mask = torch.zeros(count, longest, dtype=torch.bool, device=self._device)
        for row, continuation in enumerate(continuations):
            ids[row, : len(continuation)] = self._ids(continuation)[0]
            mask[row, : len(continuation)] = True
        logits = last.expand(count, -1).unsqueeze(1)
        if longest > 1:
            more, _ = self.model(ids[:, :-1], states.fork(state, count), mask=mask[:, 1:])
            logits = torch.cat([logits, more], 1)
        gained = F.log_softmax(logits.float(), -1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
        total = torch.where(mask, gained, 0).sum(1).tolist()
        greedy = ((logits.argmax(-1) == ids) | ~mask).all(1).tolist()
        return zip(total, greedy, strict=True)

    def _text(self, ids: list[int]) -> float:
        total, before = 0.0, [self.prefix, *ids[:-1]]
        state: Any = None
        for window, targets in zip(self._ids(before).split(WINDOW, 1), self._ids(ids).split(WINDOW, 1), strict=True):
            loss, state = self.model.loss(window, targets, state, reduction="sum", return_state=True)
            total -= float(loss)
        return total

    def _answer(self, context: str, options: dict[str, Any]) -> str:
        ends = options.get("until") or []
        ends = [ends] if isinstance(ends, str) else ends
        sampled: dict[str, Any] = {"temperature": options.get("temperature", 1.0) if options.get("do_sample") else 0.0}
        sampled |= {name: options[name] for name in ("top_k", "top_p") if options.get(name) is not None}
        longest = options.get("max_gen_toks") or options.get("max_new_tokens") or LONGEST
        ids, text = self._ids(self.tok_encode(context) or [self.prefix]), ""
        stop = self.model.origin.get("eos_token_id")
        for more in self.model.stream_text(ids, max_new_tokens=longest, stop=() if stop is None else stop, **sampled):
            text += more
            found = [text.find(end) for end in ends if end in text]
            if found:
                return text[: min(found)]
        return text


def main() -> None:
    """The harness's own command line, with our name known to it."""
    from lm_eval.__main__ import cli_evaluate

    sys.exit(cli_evaluate())


if __name__ == "__main__":
    main()
