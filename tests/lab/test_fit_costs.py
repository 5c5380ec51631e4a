"""The command that fits the cost model's constants: from times that obey the model it finds them again."""

from __future__ import annotations

from dataclasses import fields

import pytest

from ritornello.lab import fit_costs
from ritornello.method import Compiled, Newton, cost


def test_constants_are_found_again(monkeypatch):
    true = cost.Costs(4e-6, 2e-6, 3e-9, 5e-6, 6e-10, 3e-3, 7e-5, 8e-9, 9e-10, 4.5, 3.5, 2.5)

    def seconds(cell, length, method, rounds, training=False):
        monkeypatch.setitem(cost.COSTS, "cpu", true)
        known = fit_costs._character(cell)
        known.iterations = 1  # of a cell that forgets
        name = {Newton: "Newton", Compiled: "Compiled"}.get(type(method), "Sequential")
        return cost.estimates(known, 1, length, training, "cpu")[name]

    monkeypatch.setattr(fit_costs, "_seconds", seconds)
    found = fit_costs.fit(fit_costs.Sizes(256, 8, 64, 4, 1))
    for field in fields(true):
        assert getattr(found, field.name) == pytest.approx(getattr(true, field.name), rel=1e-6), field.name


def test_the_command_prints_every_constant(capsys):
    fit_costs.main(["--quick", "--no-compiler"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "class Costs:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [field.name for field in fields(cost.Costs)]
