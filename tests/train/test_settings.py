"""Settings: the schedule, and what is refused."""

from __future__ import annotations

import pytest

from ritornello.errors import InputError
from ritornello.train import Settings


def test_the_learning_rate_warms_up_and_falls():
    settings = Settings(steps=100, lr=1.0, warmup=0.1, final_lr=0.1)
    assert settings.lr_at(0.0) > 0
    assert settings.lr_at(0.05) == pytest.approx(0.5)
    assert settings.lr_at(0.1) == pytest.approx(1.0)
    assert settings.lr_at(0.55) == pytest.approx(0.55)
    assert settings.lr_at(1.0) == pytest.approx(0.1)


def test_without_a_warm_up_the_peak_is_first():
    assert Settings(lr=1.0, warmup=0.0).lr_at(0.0) == 1.0


def test_progress_is_by_steps_or_by_the_clock():
    assert Settings().steps == 1000
    assert Settings(steps=100).progress(50, 1e9) == 0.5
    assert Settings(minutes=2).progress(10**9, 60) == 0.5
    assert Settings(steps=100, minutes=1).progress(10, 45) == 0.75
    assert Settings(steps=100).progress(200, 0) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0}, {"minutes": -1}, {"batch": 0}, {"length": -3}, {"lr": 0}, {"lr": float("nan")}, {"clip": 0},
        {"accumulate": 0}, {"devices": 0}, {"warmup": 1}, {"final_lr": -0.1}, {"beta2": 1}, {"weight_decay": -1},
        {"strategy": "dpp"}, {"eval_every": 0}, {"lr": float("inf")}, {"batch": 2.5}, {"steps": 1e3},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Settings(**wrong)
