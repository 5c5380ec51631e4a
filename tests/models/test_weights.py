"""Initialisation, the optimiser's groups, dtypes."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import nn

import ritornello as rt
from ritornello.models import weights

PATTERN = ["gated_delta_net", ("attention", {"bias": True})]


def model_of(**options) -> rt.LanguageModel:
    torch.manual_seed(0)
    return rt.LanguageModel(
        rt.ModelConfig(**{"vocab_size": 256, "width": 64, "pattern": PATTERN, "depth": 4} | options)
    )


def test_projections_are_drawn_and_outputs_shrunk_with_the_depth() -> None:
    model = model_of(init_std=0.05, tied_embeddings=False)
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    outputs = {name for name in linears if name.endswith("out_proj")}
    assert len(outputs) == 8
    for name, linear in linears.items():
        expected = 0.05 / math.sqrt(8) if name in outputs else 0.05
        assert linear.weight.std().item() == pytest.approx(expected, rel=0.1), name
    assert model.embedding.weight.std().item() == pytest.approx(0.05, rel=0.1)


def test_repetitions_count_for_the_depth() -> None:
    model = model_of(pattern=[rt.Repeat(9, "gated_delta_net")], depth=2, ffn=None)
    out = model.backbone.blocks[0].blocks[0].mixer.out_proj
    assert out.weight.std().item() == pytest.approx(0.02 / math.sqrt(2 * 18), rel=0.1)


def test_a_layer_keeps_its_own_initialisation(monkeypatch) -> None:
    class Marked(nn.Linear):
        own_init = True

    class Special(rt.layers.Layer):
        kind = "special_initialisation"
        traits = rt.layers.MinGRU.traits

        def __init__(self, width):
            super().__init__(width)
            self.marked, self.plain = Marked(width, width), nn.Linear(width, width)
            nn.init.constant_(self.marked.weight, 3.0)
            nn.init.constant_(self.plain.weight, 3.0)
            nn.init.constant_(self.plain.bias, 3.0)

        def leaves(self):
            return {}

        def mix(self, x, state, call):
            return self.plain(x), {}

    listing = importlib.import_module("ritornello.layers.catalogue")
    monkeypatch.setattr(listing, "_layers", listing._layers | {Special.kind: Special})  # for this test alone
    layer = model_of(pattern=Special.kind, depth=1).backbone.blocks[0].mixer
    assert (layer.marked.weight == 3).all()
    assert (layer.plain.bias == 3).all()
    assert layer.plain.weight.abs().max() < 1


def test_the_decay_rates_of_a_layer_are_left_alone() -> None:
    decay = model_of().backbone.blocks[0].mixer.decay
    assert (decay.A_log.exp() >= 1).all()
    assert (decay.A_log.exp() <= 16).all()


def test_groups_hold_every_parameter_once() -> None:
    model = model_of(norm="layer_norm")
    groups = model.parameter_groups(0.1)
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    names = {p: name for name, p in model.named_parameters()}
    with_decay, without = ({names[p] for p in g["params"]} for g in groups)
    assert with_decay | without == set(names.values())
    assert sum(len(g["params"]) for g in groups) == len(names)
    assert all(n.endswith("weight") and "norm" not in n for n in with_decay)
    spared = ("A_log", "dt_bias", "bias", "norm.weight")
    assert {n for n in without if not n.endswith(spared)} == {"embedding.weight"}
    torch.optim.AdamW(groups).step()


def test_narrow_weights_but_for_what_must_stay_wide() -> None:
    model = model_of()
    assert model.to_dtype(torch.bfloat16) is model
    wide = {n.rsplit(".")[-1] for n, p in model.named_parameters() if p.dtype == torch.float32}
    assert wide == {"A_log", "dt_bias"}
    logits, state = model(torch.randint(256, (2, 9)))
    assert logits.dtype == torch.bfloat16
    assert state["0"]["mixer"]["S"].dtype == torch.float32
    layer = rt.layers.Mamba(16)
    weights.to_dtype(layer, torch.bfloat16)
    assert layer.initial_state(1)["conv"].dtype == torch.bfloat16, "as its inputs will be, though its rates are not"
    model.to_dtype(torch.float64)
    assert {p.dtype for p in model.parameters()} == {torch.float64}
