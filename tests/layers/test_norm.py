"""The norms that layers share, against their definitions; and what a block hands its layers under autocast."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ritornello.layers.parts.gates import GatedNorm, NormOfGated
from ritornello.layers.parts.norm import RMSNorm, l2_normalize
from ritornello.models import LanguageModel, ModelConfig
from tests.oracles.numpy_parts import rms_norm, silu, unit


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64)


def close(got, want):
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=1e-9, atol=1e-9)


def test_l2_normalize_keeps_eps():
    """Also where eps is not small beside the squares."""
    for scale in (1.0, 1e-3, 0.0):
        x = drawn(2, 3, 5) * scale
        close(l2_normalize(x), unit(x.numpy()))


def test_weights_load_from_pytorch_s_norm():
    theirs = nn.RMSNorm(6, eps=1e-5).double()
    nn.init.normal_(theirs.weight)
    ours = RMSNorm(6).double()
    ours.load_state_dict(theirs.state_dict())
    x = drawn(4, 6)
    torch.testing.assert_close(ours(x), theirs(x))


def test_gated_norm():
    o, gate = drawn(2, 3, 2, 4), drawn(2, 3, 8)
    norm = GatedNorm(4).double()
    nn.init.normal_(norm.norm.weight)
    want = rms_norm(o.numpy(), norm.norm.weight.detach().numpy(), 1e-5).reshape(2, 3, 8) * silu(gate.numpy())
    close(norm(o, gate), want)


def test_norm_of_gated_in_groups():
    o, gate = drawn(2, 3, 8), drawn(2, 3, 8) + 1
    for groups in (1, 2):
        norm = NormOfGated(8, groups).double()
        nn.init.normal_(norm.weight)
        gated = (o.numpy() * silu(gate.numpy())).reshape(2, 3, groups, -1)
        close(norm(o, gate), rms_norm(gated, 1, 1e-5).reshape(2, 3, 8) * norm.weight.detach().numpy())


def test_under_autocast_layers_read_its_dtype():
    """A block casts once, and its residual stream stays in float32."""
    model = LanguageModel(ModelConfig(vocab_size=11, width=16, pattern="gla"))
    seen, streams = [], []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.in_features == 16 and module.out_features != 11:
            module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
        if name.endswith(("mixer_norm", "ffn_norm", "final_norm")):
            module.register_forward_pre_hook(lambda _, inputs: streams.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(1, 3, dtype=torch.long))
    assert set(seen) == {torch.bfloat16}
    assert set(streams) == {torch.float32}
