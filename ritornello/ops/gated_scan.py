"""The gated scan, h ← (1 − σ(gate)) ⊙ h + σ(gate) ⊙ g(value)."""

from __future__ import annotations

from ritornello.errors import InputError, nearest
from ritornello.ops import _check
from ritornello.ops._op import Op
from ritornello.typing import Tensor

__all__ = ["gated_scan"]

ACTIVATIONS = ("positive", "silu", "tanh")


def _shapes(gate, value, state, cu_seqlens, activation):
    return [(value.shape, value.dtype), (state.shape, state.dtype)]


_op = Op("gated_scan", "gate value state cu_seqlens?", {"activation": "str?"}, shapes=_shapes)


def gated_scan(
    gate: Tensor,
    value: Tensor,
    state: Tensor | None = None,
    activation: str | None = None,
    *,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ g(v_t), z_t = σ(gate_t), for all times.

    The diagonal scan of the gated cells whose gates see the input only (minGRU, minLSTM, QRNN's f-pooling), without its
    two inputs ever standing in memory.

    Args:
        gate: (B, T, \\*S), before the sigmoid.
        value: (B, T, \\*S), v.
        state: h before the first step, (B, \\*S); zero where None.
        activation: g: ``"tanh"``, ``"silu"``, ``"positive"`` (v + ½ for v ≥ 0 and σ(v) below), or None for v itself.
        cu_seqlens: (N + 1,) integers, the bounds of N sequences packed along time with B = 1; the state's batch is N.

    Returns:
        h at all times, (B, T, \\*S) in the dtype of `value`; and the last h, (B, \\*S) in float32 or wider.

    Raises:
        InputError: shapes, dtypes or an activation that do not fit.

    Source: Bradbury et al. 2016, arXiv:1611.01576, eq. 3 (f-pooling); Feng et al. 2024, arXiv:2410.01201, appendix B
    ("positive").
    """
    _check.tensors("gated_scan", gate=gate, value=value)
    if gate.dim() < 2 or gate.shape != value.shape:
        raise InputError(
            f"`gate` and `value` of gated_scan have shapes {tuple(gate.shape)} and {tuple(value.shape)}; wanted one "
            "shape (B, T, ...) for both. Expand the smaller one."
        )
    if activation is not None and activation not in ACTIVATIONS:
        raise InputError(f"`activation` of gated_scan is {activation!r}. {nearest(str(activation), ACTIVATIONS)}")
    gate, value = _check.together("gated_scan", gate, value)
    state = _check.channel_state("gated_scan", state, value, cu_seqlens)
    return _op(gate, value, state, cu_seqlens, activation)
