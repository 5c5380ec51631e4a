"""What does not fit a layer's weights is said in one sentence by every layer; what autocast mixes is taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import ritornello as rt
from ritornello import layers
from ritornello.models import weights

ALL = [name for role in ("mixer", "feed_forward") for name in layers.catalogue(role)]
WIDTH = 16


@pytest.mark.parametrize("name", ALL)
def test_x_in_another_dtype_than_the_weights(name: str) -> None:
    layer, x = layers.build(name, WIDTH), torch.randn(2, 3, WIDTH)
    for other in (torch.float64, torch.bfloat16, torch.float16):
        with pytest.raises(rt.InputError, match=rf"`x` of {name} is {other}, and its weights are torch.float32. Turn"):
            layer(x.to(other))
    weights.to_dtype(layer, torch.bfloat16)
    with pytest.raises(rt.InputError, match=f"`x` of {name} is torch.float32, and its weights are torch.bfloat16"):
        layer(x)
    with torch.no_grad():
        assert layer(x.bfloat16())[0].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["mamba2", "s5", "lstm", "moe"])
def test_autocast_mixes_all_but_float64(name: str) -> None:
    layer, x = layers.build(name, WIDTH), torch.randn(2, 3, WIDTH)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        for mixed in (x, x.bfloat16()):
            assert layer(mixed)[0].isfinite().all()
        with pytest.raises(rt.InputError, match=f"`x` of {name} is torch.float64, and its weights are torch.float32"):
            layer(x.double())


def test_weights_that_stay_float32_do_not_tell_what_a_layer_computes_in() -> None:
    layer: Any = layers.build("mamba", WIDTH)
    weights.to_dtype(layer, torch.bfloat16)
    assert next(layer.parameters()) is layer.dt_bias and layer.dt_bias.dtype == torch.float32
    assert layer.initial_state(1)["conv"].dtype == torch.bfloat16


@pytest.mark.parametrize("name", ALL)
def test_x_elsewhere_or_of_another_make(name: str) -> None:
    layer, x = layers.build(name, WIDTH), torch.randn(2, 3, WIDTH)
    with pytest.raises(rt.InputError, match=f"`x` of {name} is on meta, and its weights are on cpu. Move"):
        layer(x.to("meta"))
    with pytest.raises(rt.InputError, match=f"`x` of {name} is torch.int64; wanted a floating"):
        layer(torch.ones(2, 3, WIDTH, dtype=torch.long))
    with pytest.raises(rt.InputError, match=rf"`x` of {name} is a tensor of layout torch.sparse.* x.to_dense\(\)"):
        layer(x.to_sparse())
    for shape in ((2, 3, WIDTH + 1), (3, WIDTH), (1, 2, 3, WIDTH)):
        with pytest.raises(rt.InputError, match=rf"`x` of {name} is \({shape[0]}, .*; wanted \(B, T, {WIDTH}\)"):
            layer(torch.zeros(shape))


@pytest.mark.parametrize("name", layers.catalogue("mixer"))
def test_a_state_that_is_not_of_its_layer(name: str) -> None:
    layer, x = layers.build(name, WIDTH), torch.randn(2, 3, WIDTH)
    state = layer(x)[1]
    first = next(iter(state.leaves))
    fewer = {n: t for n, t in state.leaves.items() if n != first}
    wider = {n: t.unsqueeze(1) if n == first else t for n, t in state.leaves.items()}  # type: ignore[union-attr]
    for changed in (fewer, wider):
        with pytest.raises(rt.StateError, match=rf"`state` of {name} holds .*'{first}'; wanted a tensor of shape \(2"):
            layer(x, replace(state, leaves=changed))
    elsewhere = replace(state, leaves={n: t.to("meta") for n, t in state.leaves.items()})  # type: ignore[union-attr]
    with pytest.raises(rt.StateError, match=rf"`state` of {name} is on meta, and `x` on cpu. Move it: rt.state.to"):
        layer(x, elsewhere)
    with torch.no_grad():
        kept = layer(x, rt.state.to(state, torch.bfloat16))[0]  # half the memory, and a little less exact
        torch.testing.assert_close(kept, layer(x, state)[0], rtol=0.1, atol=0.1)


def test_masks_and_bounds_elsewhere() -> None:
    layer, x = layers.build("gla", WIDTH), torch.randn(1, 3, WIDTH)
    with pytest.raises(rt.InputError, match=r"`mask` is on meta, and the input on cpu. Move it"):
        layer(x, mask=torch.ones(1, 3, dtype=torch.bool, device="meta"))
    with pytest.raises(rt.InputError, match=r"`cu_seqlens` is on meta, and the input on cpu. Move it"):
        layer(x, cu_seqlens=torch.tensor([0, 3], device="meta"))
