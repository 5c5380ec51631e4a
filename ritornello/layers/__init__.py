"""Layers: what mixes a sequence, one file each. `catalogue()` lists them by name."""

from __future__ import annotations

from ritornello.layers.attention import Attention
from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from ritornello.layers.catalogue import build, catalogue, find, register
from ritornello.layers.gated_delta_net import GatedDeltaNet
from ritornello.layers.lstm import LSTM
from ritornello.layers.min_gru import MinGRU

for _layer in (Attention, GatedDeltaNet, LSTM, MinGRU):
    register(_layer.kind, _layer)

__all__ = [
    "LSTM",
    "About",
    "Attention",
    "Call",
    "GatedDeltaNet",
    "Layer",
    "Leaf",
    "MinGRU",
    "Traits",
    "build",
    "catalogue",
    "find",
    "register",
]
