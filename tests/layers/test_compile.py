"""Layers of nonlinear cells under torch.compile(fullgraph=True)."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from ritornello import layers
from ritornello.testing.contracts import compiled
from ritornello.testing.subject import Subject
from tests.layers.toys import TokenShift

BY_AN_OP = ("elman", "gru", "lstm", "m2rnn", "mgu", "para_gru", "para_lstm", "slstm")


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_AN_OP)
def test_a_cell_with_an_op_is_one_graph(name):
    """Outputs and gradients of the layer as it is, at the start and from a state."""
    compiled(Subject(partial(layers.build, name, 16)), torch.float32)


def test_a_loop_over_steps_is_one_graph_after_an_eager_call():
    """What was learned about a cell in an eager call is no obstacle to the compiler."""
    layer, x = layers.build("indrnn", 8), torch.randn(2, 3, 8)
    want = layer(x)[0]
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x)[0], want)


def test_many_layers_are_compiled_in_one_process():
    """PyTorch compiles a code object eight times, or as said here, and then gives up: no class uses up another's."""
    torch._dynamo.reset()
    x = torch.randn(1, 3, 4)
    with torch._dynamo.config.patch(recompile_limit=1):  # type: ignore[attr-defined]
        for name in ("Shift", "Move"):
            layer = type(name, (TokenShift,), {})(4)
            torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x)[0], layer(x)[0])
    torch._dynamo.reset()
