"""Every recipe builds, learns a step, goes on from its state, and comes back from JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ritornello as rt
from ritornello.errors import InputError
from ritornello.models import recipe, recipes
from ritornello.models.backbone import describe
from ritornello.models.config import entry_to_json

NAMES = [name for name in recipes() if name != "xlstm[a:b]"] + ["xlstm[7:1]", "xlstm[1:0]", "xlstm[0:2]"]


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_a_step_and_goes_on(name: str) -> None:
    torch.manual_seed(0)
    config = recipe(name, vocab_size=23, width=32)
    model = rt.LanguageModel(config)
    ids = torch.randint(23, (2, 20))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(3):
        loss = model.loss(ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    with torch.no_grad():
        whole, _ = model(ids)
        first, state = model(ids[:, :9])
        torch.testing.assert_close(torch.cat([first, model(ids[:, 9:], state)[0]], 1), whole, rtol=1e-4, atol=1e-4)
    assert rt.ModelConfig.from_dict(config.to_dict()) == config


def test_what_stands_where() -> None:
    griffin = recipe("griffin", 9, 64, 5)
    assert [describe(e) for e in griffin.entries()] == ["rg_lru", "rg_lru", "attention", "rg_lru", "rg_lru"]
    jamba = recipe("jamba", 9, 64)
    assert [describe(e) for e in jamba.entries()].index("attention") == 4
    assert [describe(f) for f in jamba.feed_forwards() if f][:3] == ["gated_mlp", "moe", "gated_mlp"]
    hymba = [entry_to_json(e)["parallel"][0][1] for e in recipe("hymba", 9, 64, 7).entries()]
    assert [i for i, options in enumerate(hymba) if "window" not in options] == [0, 3, 6]
    assert recipe("xlstm[3:2]", 9, 64).pattern == ("mlstm",) * 3 + ("slstm",) * 2
    assert recipe("samba", 9, 64, dropout=0.1).dropout == 0.1
    assert all(found.about and found.paper for found in recipes().values())


def test_the_page_tells_of_every_recipe() -> None:
    page = (Path(__file__).parents[2] / "docs" / "choose-a-layer.md").read_text(encoding="utf-8")
    for name, found in recipes().items():
        assert f"| `{name}` | {found.about} | {found.paper} |" in page, name


@pytest.mark.parametrize("name", ["grifin", "xlstm[0:0]", "xlstm[a:b]", ""])
def test_an_unknown_recipe_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="There is no recipe"):
        recipe(name, 9, 64)
