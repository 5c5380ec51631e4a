"""S4 and LSSL step by step: the same system as all at once, with no system of equations to solve and nothing kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import ritornello as rt
from ritornello.cells import s4
from ritornello.layers import build
from ritornello.layers.parts import hippo
from ritornello.testing.subject import close

WIDTH = 8
LAYERS = [("s4", {}), ("lssl", {}), ("lssl", {"operator": "legt"}), ("lssl", {"operator": "lagt", "state_size": 7})]


@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_a_step_is_that_of_the_dense_system(kind: str, options: dict) -> None:
    layer: Any = build(kind, WIDTH, **options).double()
    system = layer.cell.system
    A, B, C, _ = system(torch.float64)
    h, x = torch.randn(3, *C.shape, dtype=torch.float64), torch.randn(3, WIDTH, dtype=torch.float64)
    want = torch.einsum("hij,bhj->bhi", A, h) + B * x.unsqueeze(-1)
    close(system.move(torch.float64)(h, x), want, torch.float64, kind)
    if kind == "lssl":
        assert system.normal[3].shape[1] <= 2, "an operator of HiPPO is normal but for a rank of 2"


@pytest.mark.parametrize("size", [1, 2, 9])
def test_any_matrix_has_the_form(size: int) -> None:
    A, B = torch.randn(size, size, dtype=torch.float64), torch.randn(size, dtype=torch.float64)
    system = s4.DenseSystem(A, B, WIDTH, 1e-2, 1e-1).double()
    h, x = torch.randn(1, WIDTH, size, dtype=torch.float64), torch.randn(1, WIDTH, dtype=torch.float64)
    dense, drive, _, _ = system(torch.float64)
    want = torch.einsum("hij,bhj->bhi", dense, h) + drive * x.unsqueeze(-1)
    close(system.move(torch.float64)(h, x), want, torch.float64, "a random matrix")


@pytest.mark.parametrize(("kind", "options"), LAYERS)
@torch.no_grad()
def test_a_step_follows_the_weights(kind: str, options: dict) -> None:
    layer, other = build(kind, WIDTH, **options).double(), build(kind, WIDTH, **options).double()
    x = torch.randn(1, 40, WIDTH, dtype=torch.float64)
    for change in (
        lambda: None,
        lambda: [p.add_(0.1) for p in layer.parameters()],
        lambda: [p.data.mul_(0.9) for p in layer.parameters()],
        lambda: layer.load_state_dict(other.state_dict()),
    ):
        change()
        whole, state, steps = layer(x)[0], None, []
        for now in x.split(1, 1):
            y, state = layer(now, state)
            steps.append(y)
        close(torch.cat(steps, 1), whole, torch.float64, "step by step")


@torch.no_grad()
def test_a_thousand_float32_steps_stay_near() -> None:
    torch.manual_seed(0)
    for kind, options in LAYERS[:2]:
        layer: Any = build(kind, WIDTH, **options)
        system = layer.cell.system
        narrow, wide = system.move(torch.float32), system.move(torch.float64)
        x = torch.randn(1000, 1, WIDTH)
        h = torch.zeros(1, WIDTH, system.C.shape[1] * (2 if kind == "s4" else 1))
        exact = h.double()
        for now in x:
            h, exact = narrow(h, now), wide(exact, now.double())
        error = ((h - exact).abs().max() / exact.abs().max()).item()
        assert error < 2e-5, f"{kind} {options}: {error:.1e}"


def test_a_model_with_a_fixed_operator_is_saved_and_loaded(tmp_path: Path) -> None:
    model = rt.LanguageModel(rt.ModelConfig(vocab_size=16, width=WIDTH, pattern="lssl", depth=2))
    rt.save(model, tmp_path)
    ids = torch.randint(16, (1, 5))
    with torch.no_grad():
        assert torch.equal(rt.load(tmp_path)(ids)[0], model(ids)[0])


def test_without_a_native_kernel_it_is_no_loop() -> None:
    for kind in ("s4", "lssl"):
        layer: Any = build(kind, WIDTH).to("meta")
        assert rt.Auto().choose(layer.cell) == rt.Fused()


def test_legt_needs_a_scale() -> None:
    """Its rows are larger than its columns: without the scale the rank would be full."""
    A, B = hippo.legt(16)
    assert s4.DenseSystem(A, B, 1, 1e-2, 1e-1).normal[3].shape == (16, 2)
