"""Recurrences as functions on tensors. Each takes an initial state and returns its output and the final state.

Beside them the two functions of single rows that layers spend most of their time in, `rms_norm` and `swiglu`.
"""

from __future__ import annotations

from ritornello.ops.block_scan import block_scan
from ritornello.ops.causal_conv import causal_conv
from ritornello.ops.delta_rule import delta_rule
from ritornello.ops.diagonal_scan import diagonal_scan
from ritornello.ops.dplr import dplr
from ritornello.ops.elman import elman
from ritornello.ops.gated_scan import gated_scan
from ritornello.ops.gru import gru
from ritornello.ops.linear_attention import linear_attention
from ritornello.ops.lstm import lstm
from ritornello.ops.m2rnn import m2rnn
from ritornello.ops.mgu import mgu
from ritornello.ops.mlstm import mlstm
from ritornello.ops.para_gru import para_gru
from ritornello.ops.para_lstm import para_lstm
from ritornello.ops.rms_norm import rms_norm
from ritornello.ops.selective_scan import selective_scan
from ritornello.ops.slstm import slstm
from ritornello.ops.softmax_scan import softmax_scan
from ritornello.ops.swiglu import swiglu

__all__ = [
    "block_scan",
    "causal_conv",
    "delta_rule",
    "diagonal_scan",
    "dplr",
    "elman",
    "gated_scan",
    "gru",
    "linear_attention",
    "lstm",
    "m2rnn",
    "mgu",
    "mlstm",
    "para_gru",
    "para_lstm",
    "rms_norm",
    "selective_scan",
    "slstm",
    "softmax_scan",
    "swiglu",
]
