"""The native backend: C kernels for a CPU, one shared library, loaded at the first call of an op.

`SPECIFICATIONS` is the table of them: one line per op. Beside `forward` and `backward`, a kernel's module has `limits`
where it does not take all sizes.
"""

from __future__ import annotations

import torch

from ritornello.kernels.registry import Kernel, register

REAL = (torch.float32, torch.float64, torch.bfloat16)
COMPLEX = (torch.complex64, torch.complex128)

SPECIFICATIONS: dict[str, tuple[torch.dtype, ...]] = {
    # op, and the dtypes of its first tensor; its module has the same name
    "causal_conv": REAL,
    "block_scan": REAL,
    "diagonal_scan": REAL + COMPLEX,
    "gated_scan": REAL,
    "linear_attention": REAL,
    "delta_rule": REAL,
    "dplr": REAL,
    "mlstm": REAL,
    "selective_scan": REAL,
    "softmax_scan": REAL,
    "lstm": REAL,
    "gru": REAL,
    "mgu": REAL,
    "elman": REAL,
    "slstm": REAL,
    "para_gru": REAL,
    "para_lstm": REAL,
    "m2rnn": REAL,
    "rms_norm": REAL,
    "swiglu": REAL,
}


def available() -> bool:
    """Whether there is a native library that can be loaded; if not, it says so once."""
    from ritornello.kernels.native import _library

    return _library.available()


def _missing() -> str | None:
    from ritornello.kernels.native import _library

    return _library.missing()


for _op, _dtypes in SPECIFICATIONS.items():
    _target = f"ritornello.kernels.native.{_op}"
    register(Kernel(_op, "native", _target, frozenset({"cpu"}), frozenset(_dtypes), _missing))
