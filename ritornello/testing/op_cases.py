"""The cases by which every backend of every op is compared with the reference.

A case's numbers are drawn in float64 and rounded to the dtype that is tested, so all dtypes see the same inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ritornello.testing.draw import Draw, strided
from ritornello.typing import Tensor

__all__ = ["OF_ROWS", "OpCase", "case", "cases", "op_names", "over_tensors"]

OF_ROWS = ("rms_norm", "swiglu")
"""The ops on single rows: they have no time, no state and no packing."""


@dataclass(frozen=True)
class OpCase:
    """One call of an op: its arguments by name, and what is asked of its gradients."""

    op: str
    name: str
    dtype: torch.dtype
    arguments: dict[str, Any]
    loss: str = "both"  # which results the loss reads: "output", "state" or "both"
    needs: tuple[str, ...] | None = None  # arguments that want a gradient; None: all
    expanded: bool = False  # the loss is a sum: its gradient has stride 0


# ------------------------------------------------------------------------------------------------- arguments of each op

MATRIX = {
    "plain": {},
    "no state": {"state": False},
    "one step": {"T": 1},
    "no steps": {"T": 0},
    "empty batch": {"B": 0},
    "whole chunks": {"B": 1, "T": 128, "K": 16, "V": 16},
    "off the chunk": {"B": 1, "T": 133, "K": 16, "V": 16},
    "odd sizes": {"B": 3, "T": 19, "H": 3, "Hv": 3, "K": 5, "V": 7},
    "small key": {"K": 3, "V": 20},
    "wide heads": {"B": 1, "T": 21, "H": 1, "Hv": 1, "K": 72, "V": 40},
    "grouped heads": {"H": 2, "Hv": 6},
    "packed": {"T": 90, "cu": [0, 0, 17, 18, 18, 83]},
    "packed to the end": {"T": 40, "cu": [0, 33, 40]},
    "nothing packed": {"T": 5, "cu": [0, 0, 0]},
    "around chunks": {"T": 145, "H": 1, "Hv": 1, "V": 20, "cu": [0, 15, 31, 48, 81, 145]},
}
VECTOR = {
    "plain": {},
    "no state": {"state": False},
    "one step": {"T": 1},
    "no steps": {"T": 0},
    "empty batch": {"B": 0},
    "long": {"B": 1, "T": 300},
    "odd sizes": {"B": 3, "T": 19, "D": 7},
    "wide": {"B": 1, "T": 21, "D": 131},
    "packed": {"T": 90, "cu": [0, 0, 17, 18, 18, 83]},
    "packed to the end": {"T": 40, "cu": [0, 33, 40]},
    "nothing packed": {"T": 5, "cu": [0, 0, 0]},
}
ROWS = {
    "plain": {"T": 64},
    "one step": {"B": 1, "T": 1, "D": 256},
    "no steps": {"T": 0},
    "empty batch": {"B": 0},
    "odd sizes": {"B": 3, "T": 19, "D": 7},
    "wide": {"B": 1, "T": 70, "D": 131},
    "heads": {"heads": 3, "D": 16},
    "views": {"views": True, "D": 40},
    "views of heads": {"views": True, "heads": 3, "D": 24},
    "one size": {"D": 1},
}


class Sizes:
    """The sizes of a case, and its packing."""

    def __init__(self, draw: Draw, B=2, T=37, H=2, Hv=2, K=8, V=8, D=6, N=4, W=4, state=True, cu=None, **options):
        self.B, self.T, self.H, self.Hv, self.K, self.V, self.D, self.W = B if cu is None else 1, T, H, Hv, K, V, D, W
        self.N, self.state, self.options = N, state, options
        self.rows = self.B if cu is None else len(cu) - 1
        self.packing = {} if cu is None else {"cu_seqlens": torch.tensor(cu, device=draw.device)}

    def __getattr__(self, name: str) -> Any:
        return self.options.get(name)


def _qkv(d: Draw, z: Sizes, heads: int) -> dict[str, Any]:
    found = {"q": d.normal(z.B, z.T, z.H, z.K), "k": d.unit(z.B, z.T, z.H, z.K), "v": d.normal(z.B, z.T, heads, z.V)}
    return found | z.packing


def _gate(d: Draw, z: Sizes) -> dict[str, Any]:
    shape = (z.B, z.T, z.Hv) + ((z.K,) if z.vector else ())
    if z.signed:
        return {"decay": d.signed(*shape)}
    return {"log_decay": d.log_decay(z.decay, *shape)} if z.decay else {}


def _matrix_state(d: Draw, z: Sizes) -> dict[str, Any]:
    return {"state": d.normal(z.rows, z.Hv, z.K, z.V, gate=True)} if z.state else {}


def _linear_attention(d: Draw, z: Sizes) -> dict[str, Any]:
    bonus = {"bonus": d.normal(z.Hv, z.K, gate=True)} if z.bonus else {}
    return _qkv(d, z, z.Hv) | _gate(d, z) | bonus | _matrix_state(d, z)


def _delta_rule(d: Draw, z: Sizes) -> dict[str, Any]:
    return _qkv(d, z, z.Hv) | {"beta": d.uniform(0.0, 2.0, z.B, z.T, z.Hv)} | _gate(d, z) | _matrix_state(d, z)


def _dplr(d: Draw, z: Sizes) -> dict[str, Any]:
    a = d.unit(z.B, z.T, z.H, z.K)
    b = (-a.double() * d.uniform(0.0, 1.0, z.B, z.T, z.H, z.K).double()).to(a.dtype)
    return _qkv(d, z, z.Hv) | {"a": a, "b": b} | _gate(d, z) | _matrix_state(d, z)


def _mlstm(d: Draw, z: Sizes) -> dict[str, Any]:
    gates = {"i": d.uniform(-4, 4, z.B, z.T, z.H), "f": d.uniform(-2, 5, z.B, z.T, z.H)}
    if z.decay == "strong":
        gates["f"] = -d.log_decay("strong", z.B, z.T, z.H).abs() + 5
    state = {
        "state": (
            d.normal(z.rows, z.H, z.K, z.V, gate=True),
            d.normal(z.rows, z.H, z.K, gate=True),
            d.uniform(-1, 2, z.rows, z.H),
        )
    }
    return _qkv(d, z, z.H) | gates | (state if z.state else {})


def _diagonal_scan(d: Draw, z: Sizes) -> dict[str, Any]:
    shape = (z.B, z.T, z.D, 3) if z.deep else (z.B, z.T, z.D)
    if d.dtype.is_complex:
        a = torch.polar(d.uniform(0.3, 1.0, *shape).real.double(), d.uniform(-3, 3, *shape).real.double()).to(d.dtype)
    else:
        a = d.log_decay("strong", *shape).exp().to(d.dtype) if z.decay else d.signed(*shape).to(d.dtype)
    state = {"state": d.normal(z.rows, *shape[2:], gate=True)} if z.state else {}
    return {"a": a, "b": d.normal(*shape)} | state | z.packing


def _block_scan(d: Draw, z: Sizes) -> dict[str, Any]:
    n = z.blocks or 2
    a = (d.signed(z.B, z.T, n, n, z.D) / n).to(d.dtype)  # divided by n: products of many stay bounded
    state = {"state": d.normal(z.rows, n, z.D, gate=True)} if z.state else {}
    return {"a": a, "b": d.normal(z.B, z.T, n, z.D)} | state | z.packing


def _gated_scan(d: Draw, z: Sizes) -> dict[str, Any]:
    shape = (z.B, z.T, z.D, 3) if z.deep else (z.B, z.T, z.D)
    gate = d.uniform(-90, 90, *shape, gate=False) if z.decay else 2 * d.normal(*shape)
    state = {"state": d.normal(z.rows, *shape[2:], gate=True)} if z.state else {}
    return {"gate": gate, "value": d.normal(*shape)} | state | {"activation": z.activation} | z.packing


def _softmax_scan(d: Draw, z: Sizes) -> dict[str, Any]:
    inner, value = (z.D,), (z.D, z.V) if z.vector else (z.D,)
    found: dict[str, Any] = {"logits": d.normal(z.B, z.T, *inner, gate=True) * 3, "values": d.normal(z.B, z.T, *value)}
    if z.decay:
        found["log_decay"] = d.log_decay(z.decay, z.B, z.T, *inner)
    if z.bonus:
        found["bonus"] = d.normal(*inner, gate=True)
    if z.state:
        rows = (z.rows, *inner)
        found["state"] = d.normal(*rows, gate=True), d.normal(z.rows, *value, gate=True), d.uniform(0.5, 2, *rows)
    return found | z.packing


def _selective_scan(d: Draw, z: Sizes) -> dict[str, Any]:
    low, high = (0.001, 0.5) if z.decay != "strong" else (0.01, 12.0)
    found = {"x": d.normal(z.B, z.T, z.D), "delta": d.uniform(low, high, z.B, z.T, z.D, gate=False)}
    found |= {"A": -d.uniform(0.2, 3.0, z.D, z.N), "B": d.normal(z.B, z.T, z.N), "C": d.normal(z.B, z.T, z.N)}
    found |= {} if z.no_skip else {"D": d.normal(z.D, gate=True)}
    found |= {"state": d.normal(z.rows, z.D, z.N, gate=True)} if z.state else {}
    return found | {"signed": bool(z.signed)} | z.packing


def _causal_conv(d: Draw, z: Sizes) -> dict[str, Any]:
    found = {"x": d.normal(z.B, z.T, z.D), "weight": d.normal(z.D, z.W)}
    found |= {} if z.no_bias else {"bias": d.normal(z.D)}
    found |= {"state": d.normal(z.rows, z.D, z.W - 1)} if z.state else {}
    return found | {"activation": "silu" if z.silu else None} | z.packing


def _rows(d: Draw, z: Sizes) -> list[Tensor]:
    """Two tensors (B, T, D) or (B, T, H, D): with `views`, the halves of one projection."""
    inner = (z.heads, z.D) if z.heads else (z.D,)
    if not z.views:
        return [d.normal(z.B, z.T, *inner) for _ in range(2)]
    halves = d.normal(z.B, z.T, 2 * math.prod(inner)).chunk(2, -1)
    return [half.unflatten(-1, inner) for half in halves]


def _rms_norm(d: Draw, z: Sizes) -> dict[str, Any]:
    x, gate = _rows(d, z)
    found: dict[str, Any] = {"x": x}
    found |= {} if z.no_weight else {"weight": d.normal(z.D, gate=not z.half_weight)}
    found |= {} if z.no_gate else {"gate": gate}
    return found | ({"eps": z.eps} if z.eps else {})


def _swiglu(d: Draw, z: Sizes) -> dict[str, Any]:
    gate, up = _rows(d, z)
    return {"gate": gate, "up": up}


# Each op: how its arguments are drawn, the sizes it is tried in, and its own variants.
_SPECS: dict[str, tuple[Callable[[Draw, Sizes], dict[str, Any]], dict[str, dict], dict[str, dict]]] = {
    "linear_attention": (
        _linear_attention,
        {name: {"decay": "mild"} | sizes for name, sizes in MATRIX.items()},
        {
            "no decay": {},
            "strong": {"decay": "strong", "T": 133},
            "vector": {"decay": "mild", "vector": True, "T": 75},
            "vector strong": {"decay": "strong", "vector": True, "T": 75},
            "vector packed": {"decay": "mild", "vector": True, "T": 60, "cu": [0, 0, 40, 57]},
            "vector wide": {"decay": "mild", "vector": True, "B": 1, "T": 65, "H": 1, "Hv": 1, "K": 72, "V": 40},
            "vector grouped": {"decay": "mild", "vector": True, "Hv": 4, "K": 5, "V": 9},
            "signed": {"signed": True, "T": 75},
            "signed vector": {"signed": True, "vector": True, "T": 75},
            "bonus": {"bonus": True, "vector": True, "decay": "strong", "T": 40},
            "bonus scalar": {"bonus": True, "decay": "mild"},
            "bonus packed": {"bonus": True, "decay": "mild", "T": 40, "cu": [0, 9, 9, 35]},
        },
    ),
    "delta_rule": (
        _delta_rule,
        {name: {"decay": "mild"} | sizes for name, sizes in MATRIX.items()},
        {
            "no decay": {"T": 70},
            "strong": {"decay": "strong", "T": 133},
            "vector": {"decay": "mild", "vector": True, "T": 75},
            "vector strong": {"decay": "strong", "vector": True, "T": 75},
            "vector packed": {"decay": "mild", "vector": True, "T": 60, "cu": [0, 0, 40, 57]},
            "vector wide": {"decay": "mild", "vector": True, "B": 1, "T": 65, "H": 1, "Hv": 1, "K": 72, "V": 40},
            "vector grouped": {"decay": "mild", "vector": True, "Hv": 4, "K": 5, "V": 9},
            "signed": {"signed": True, "T": 75},
            "signed vector": {"signed": True, "vector": True, "T": 75},
        },
    ),
    "dplr": (
        _dplr,
        {name: {"decay": "mild", "vector": True} | sizes for name, sizes in MATRIX.items()},
        {
            "scalar": {"decay": "mild"},
            "strong": {"decay": "strong", "vector": True, "T": 75},
            "scalar strong": {"decay": "strong", "T": 75},
        },
    ),
    "mlstm": (
        _mlstm,
        {name: sizes for name, sizes in MATRIX.items() if name != "grouped heads"},
        {"strong": {"decay": "strong", "T": 133}, "wide state": {"B": 1, "T": 17, "H": 1, "V": 80}},
    ),
    "softmax_scan": (
        _softmax_scan,
        VECTOR,
        {
            "vector values": {"vector": True},
            "decay": {"decay": "mild"},
            "strong decay": {"decay": "strong", "T": 75},
            "strong vector no state": {"decay": "strong", "vector": True, "state": False},
            "bonus": {"bonus": True, "decay": "mild"},
            "bonus no state": {"bonus": True, "decay": "strong", "state": False, "vector": True},
            "packed vector": {"vector": True, "decay": "mild", "T": 40, "cu": [0, 9, 9, 35]},
        },
    ),
    "diagonal_scan": (_diagonal_scan, VECTOR, {"deep": {"deep": True}, "strong": {"decay": "strong"}}),
    "block_scan": (
        _block_scan,
        VECTOR,
        {
            "three": {"blocks": 3, "T": 75},
            "three packed": {"blocks": 3, "T": 40, "cu": [0, 9, 9, 35]},
            "four": {"blocks": 4},
            "five": {"blocks": 5},
            "one": {"blocks": 1},
        },
    ),
    "gated_scan": (
        _gated_scan,
        VECTOR,
        {
            "deep": {"deep": True},
            "strong": {"decay": "strong", "activation": "positive"},
            "positive": {"activation": "positive", "T": 75},
            "tanh packed": {"activation": "tanh", "T": 40, "cu": [0, 9, 9, 35]},
            "silu": {"activation": "silu", "T": 75},
        },
    ),
    "selective_scan": (
        _selective_scan,
        VECTOR,
        {
            "no skip": {"no_skip": True},
            "signed": {"signed": True},
            "strong": {"decay": "strong", "T": 75},
            "state of 16": {"N": 16},
            "state of 5": {"N": 5, "signed": True},
        },
    ),
    "causal_conv": (
        _causal_conv,
        VECTOR,
        {
            "silu": {"silu": True},
            "no bias": {"no_bias": True},
            "width 1": {"W": 1},
            "width 3": {"W": 3, "silu": True},
            "shorter than the window": {"T": 2, "W": 5},
            "packed silu": {"silu": True, "T": 9, "cu": [0, 1, 1, 3, 8]},
        },
    ),
    "rms_norm": (
        _rms_norm,
        ROWS,
        {
            "no gate": {"no_gate": True, "D": 40},
            "no weight": {"no_weight": True, "T": 40},
            "alone": {"no_weight": True, "no_gate": True},
            "weight in the dtype of x": {"half_weight": True},
            "large eps": {"eps": 0.5},
        },
    ),
    "swiglu": (_swiglu, ROWS, {}),
}


def op_names() -> list[str]:
    """Every op there are cases for."""
    return list(_SPECS)


def cases(op: str) -> list[str]:
    """The names of the cases of `op`."""
    _, sizes, variants = _SPECS[op]
    losses = [] if op in OF_ROWS else ["output alone", "state alone"]
    return [*sizes, *variants, "strided", *losses, "one gradient"]


def case(op: str, name: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> OpCase:
    """The case `name` of `op` in `dtype`."""
    arguments, sizes, variants = _SPECS[op]
    table = sizes | variants
    draw = Draw(f"{op} {name}", dtype, device)
    found = arguments(draw, Sizes(draw, **table.get(name, table["plain"])))
    if name == "strided":
        found = {key: over_tensors(strided, value) if key != "cu_seqlens" else value for key, value in found.items()}
        return OpCase(op, name, dtype, found, expanded=True)
    if name in ("output alone", "state alone"):
        return OpCase(op, name, dtype, found, loss=name.split()[0])
    return OpCase(op, name, dtype, found, needs=(next(iter(found)),) if name == "one gradient" else None)


def over_tensors(function: Callable[[Tensor], Any], value: Any) -> Any:
    """`function` of a tensor or of each in a tuple; anything else as it is."""
    if isinstance(value, tuple):
        return tuple(over_tensors(function, v) for v in value)
    return function(value) if isinstance(value, Tensor) else value
