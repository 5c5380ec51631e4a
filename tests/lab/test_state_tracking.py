"""The state-tracking experiment: what it counts, and that it runs; its table in the docs is its own."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ritornello import layers
from ritornello.lab import state_tracking
from ritornello.lab.state_tracking import RECIPES, TASKS, Recipe, Result, main, run, table

PAGE = Path(__file__).parents[2] / "docs" / "state-tracking.md"


def test_tasks_ask_after_every_symbol_and_train_on_forty() -> None:
    for task in TASKS.values():
        assert task.train_length == 40
        batch = task.sample(3, 256, generator=torch.Generator().manual_seed(0))
        assert batch.mask.all()
        assert batch.targets.shape == (3, 256)


def test_a_short_training_stays_at_chance_and_repeats() -> None:
    short = replace(RECIPES["lstm"], steps=2, width=16)
    result = run("lstm", "s3", short)
    assert abs(result.every - 1 / 6) < 0.05
    assert replace(run("lstm", "s3", short), seconds=0) == replace(result, seconds=0)


def test_the_lstm_learns_parity_beyond_its_training() -> None:
    result = run("lstm", "parity", replace(RECIPES["lstm"], width=32, steps=250, init_std=0.02))
    assert result.tail > 0.99


def test_m2rnn_starts_where_its_recipe_says() -> None:
    layer, recipe = layers.M2RNN(16, heads=4, key_size=2, value_size=3), replace(RECIPES["m2rnn"], gain=1.5, forget=0.7)
    state_tracking._start(layer, recipe)
    torch.testing.assert_close(layer.decay(torch.zeros(1, 1, 4)).exp(), torch.full((1, 1, 4), 0.7))
    heads = layer.cell.weight.flatten(1)
    torch.testing.assert_close(heads @ heads.mT, 2.25 * torch.eye(4))


def test_every_layer_is_trained_alike() -> None:
    own = {"options": {}, "gain": None, "forget": None}  # M²RNN's sizes and first values
    assert all(replace(recipe, **own) == Recipe() for recipe in RECIPES.values())


def test_the_table_has_every_seed_in_one_row() -> None:
    runs = [Result("lstm", "s3", 1.0, 0.5, 2.0, 7, seed=0), Result("lstm", "s3", 0.25, 0.125, 4.0, 7, seed=1)]
    row = "| `lstm` | s3 | 16.7 % | 100.0, 25.0 % | 50.0, 12.5 % | 7 | 2 s |"
    assert table(runs).splitlines()[2:] == [row]


def test_the_command_runs_every_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def counted(layer: str, task: str, recipe: Recipe, seed: int) -> Result:
        seeds.append(seed)
        return Result(layer, task, 1.0, 1.0, 1.0, 1, seed)

    monkeypatch.setattr(state_tracking, "run", counted)
    assert main(["--layers", "gla", "--tasks", "parity"]) == 0
    assert main(["--layers", "gla", "--tasks", "parity", "--seeds", "5"]) == 0
    assert seeds == [0, 1, 2, 5]


def test_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(state_tracking.RECIPES, "gla", replace(RECIPES["gla"], steps=1, width=16))  # type: ignore[arg-type]
    assert main(["--layers", "gla", "--tasks", "parity", "--seeds", "0"]) == 0
    assert "| `gla` | parity | 50.0 % |" in capsys.readouterr().out


def test_the_page_has_the_table_of_these_recipes() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    head = table([Result("lstm", "s3", 1.0, 1.0, 1.0, 1)]).splitlines()[0]
    start = lines.index(head)
    rows = [re.match(r"\| `(\w+)` \| (\w+) \|", line) for line in lines[start + 2 :]]
    assert [r.groups() for r in rows if r] == [(layer, task) for task in TASKS for layer in RECIPES]
    assert set(RECIPES) <= set(layers.catalogue())
