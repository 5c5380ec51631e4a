"""Layers are told which of how many they are."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello.models.config import Parallel, Repeat, as_entry
from ritornello.models.place import placed


def test_each_name_is_counted_for_itself() -> None:
    pattern = ["rwkv7", "gla", Parallel("rwkv7", "rwkv6"), Repeat(3, "rwkv7"), ("rwkv6", {"place": (0, 9)}), None]
    zero, gla, side, again, given, none = placed([None if e is None else as_entry(e) for e in pattern])
    assert zero == ("rwkv7", {"place": (0, 3)}) and gla == "gla" and none is None
    assert isinstance(side, Parallel) and isinstance(again, Repeat)
    assert side.mixers == (("rwkv7", {"place": (1, 3)}), ("rwkv6", {"place": (0, 2)}))
    assert again.blocks == (("rwkv7", {"place": (2, 3)}),)
    assert given == ("rwkv6", {"place": (0, 9)}), "a place that was given is kept"


@pytest.mark.parametrize("name", ["rwkv5", "rwkv6", "rwkv7"])
def test_a_model_streams_what_it_reads_at_once(name: str) -> None:
    torch.manual_seed(0)
    ffn = "rwkv7_channel_mix" if name == "rwkv7" else "rwkv6_channel_mix"
    model = rt.LanguageModel(rt.ModelConfig(vocab_size=17, width=16, pattern=name, depth=3, ffn=ffn)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn_like(p))
    places = [float(block.mixer.norm.weight.detach().mean()) for block in model.backbone.blocks]
    assert len(set(places)) == 3, "the first values do not change with the depth"
    ids = torch.randint(17, (2, 12))
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, :5] = False
    with torch.no_grad():
        whole, _ = model(ids)
        state, parts = None, []
        for chunk in ids.split([1, 7, 4], 1):
            logits, state = model(chunk, state)
            parts.append(logits)
        masked, _ = model(ids, mask=mask)
        alone, _ = model(ids[1:, 5:])
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(masked[1:, 5:], alone)
    assert torch.autograd.grad(model(ids)[0].square().sum(), list(model.parameters()))
