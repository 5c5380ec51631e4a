"""Recurrences with parameters of their own, one file each."""

from __future__ import annotations

from ritornello.cells.bilinear import BilinearCell
from ritornello.cells.block_lrnn import BlockLRNNCell
from ritornello.cells.elman import ElmanCell
from ritornello.cells.ema import EMACell
from ritornello.cells.fp_rnn import FPRNNCell
from ritornello.cells.gru import GRUCell
from ritornello.cells.hgrn import HGRUCell
from ritornello.cells.implicit_ssm import ImplicitSSMCell
from ritornello.cells.indrnn import IndRNNCell
from ritornello.cells.lmu import LMUCell
from ritornello.cells.lru import LRUCell
from ritornello.cells.lstm import LSTMCell
from ritornello.cells.lti import LTICell
from ritornello.cells.m2rnn import M2RNNCell
from ritornello.cells.mgu import MGUCell
from ritornello.cells.min_gru import MinGRUCell
from ritornello.cells.min_lstm import MinLSTMCell
from ritornello.cells.para_gru import ParaGRUCell
from ritornello.cells.para_lstm import ParaLSTMCell
from ritornello.cells.peephole_lstm import PeepholeLSTMCell
from ritornello.cells.qrnn import QRNNCell
from ritornello.cells.rg_lru import RGLRUCell
from ritornello.cells.s4 import S4System
from ritornello.cells.s4d import S4DCell
from ritornello.cells.s5 import S5Cell
from ritornello.cells.slstm import SLSTMCell
from ritornello.cells.sru import SRUCell
from ritornello.cells.ugrnn import UGRNNCell
from ritornello.cells.wave_rnn import WaveRNNCell

__all__ = [
    "BilinearCell",
    "BlockLRNNCell",
    "EMACell",
    "ElmanCell",
    "FPRNNCell",
    "GRUCell",
    "HGRUCell",
    "ImplicitSSMCell",
    "IndRNNCell",
    "LMUCell",
    "LRUCell",
    "LSTMCell",
    "LTICell",
    "M2RNNCell",
    "MGUCell",
    "MinGRUCell",
    "MinLSTMCell",
    "ParaGRUCell",
    "ParaLSTMCell",
    "PeepholeLSTMCell",
    "QRNNCell",
    "RGLRUCell",
    "S4DCell",
    "S4System",
    "S5Cell",
    "SLSTMCell",
    "SRUCell",
    "UGRNNCell",
    "WaveRNNCell",
]
