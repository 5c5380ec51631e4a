"""Layers: what mixes a sequence, one file each. `catalogue()` lists them by name: all that are imported here."""

from __future__ import annotations

from ritornello.layers.aaren import Aaren
from ritornello.layers.attention import Attention
from ritornello.layers.base import About, Call, Layer, Leaf, Traits
from ritornello.layers.based import Based
from ritornello.layers.bilinear import Bilinear
from ritornello.layers.block_lrnn import BlockLRNN
from ritornello.layers.catalogue import build, catalogue, find, register
from ritornello.layers.delta_net import DeltaNet
from ritornello.layers.delta_product import DeltaProduct
from ritornello.layers.elman import Elman
from ritornello.layers.ema import EMA
from ritornello.layers.fast_weights import FastWeights
from ritornello.layers.forgetting_attention import ForgettingAttention
from ritornello.layers.fp_rnn import FPRNN
from ritornello.layers.gated_delta_net import GatedDeltaNet
from ritornello.layers.gated_mlp import GatedMLP
from ritornello.layers.gla import GLA
from ritornello.layers.gru import GRU
from ritornello.layers.hgrn import HGRN
from ritornello.layers.hgrn2 import HGRN2
from ritornello.layers.implicit_ssm import ImplicitSSM
from ritornello.layers.indrnn import IndRNN
from ritornello.layers.kda import KDA
from ritornello.layers.latent_attention import LatentAttention
from ritornello.layers.lightnet import LightNet
from ritornello.layers.linear_attention import LinearAttention
from ritornello.layers.lmu import LMU
from ritornello.layers.log_linear import LogLinear
from ritornello.layers.lru import LRU
from ritornello.layers.lssl import LSSL
from ritornello.layers.lstm import LSTM
from ritornello.layers.m2rnn import M2RNN
from ritornello.layers.mamba import Mamba
from ritornello.layers.mamba2 import Mamba2
from ritornello.layers.mega import Mega
from ritornello.layers.mgu import MGU
from ritornello.layers.min_gru import MinGRU
from ritornello.layers.min_lstm import MinLSTM
from ritornello.layers.mlp import MLP
from ritornello.layers.mlstm import MLSTM
from ritornello.layers.moe import MoE
from ritornello.layers.mom import MoM
from ritornello.layers.para_gru import ParaGRU
from ritornello.layers.para_lstm import ParaLSTM
from ritornello.layers.peephole_lstm import PeepholeLSTM
from ritornello.layers.qrnn import QRNN
from ritornello.layers.relit import ReLiT
from ritornello.layers.relu_attention import ReLUAttention
from ritornello.layers.retention import Retention
from ritornello.layers.rg_lru import RGLRU
from ritornello.layers.rwkv4 import RWKV4
from ritornello.layers.rwkv4_channel_mix import RWKV4ChannelMix
from ritornello.layers.rwkv5 import RWKV5
from ritornello.layers.rwkv6 import RWKV6
from ritornello.layers.rwkv6_channel_mix import RWKV6ChannelMix
from ritornello.layers.rwkv7 import RWKV7
from ritornello.layers.rwkv7_channel_mix import RWKV7ChannelMix
from ritornello.layers.s4 import S4
from ritornello.layers.s4d import S4D
from ritornello.layers.s5 import S5
from ritornello.layers.short_conv import ShortConv
from ritornello.layers.slstm import SLSTM
from ritornello.layers.sru import SRU
from ritornello.layers.tcnca import TCNCA
from ritornello.layers.ugrnn import UGRNN
from ritornello.layers.urpe_attention import URPEAttention
from ritornello.layers.wave_rnn import WaveRNN

for _layer in [v for v in globals().values() if isinstance(v, type) and issubclass(v, Layer) and v is not Layer]:
    register(_layer.kind, _layer)

__all__ = [
    "EMA",
    "FPRNN",
    "GLA",
    "GRU",
    "HGRN",
    "HGRN2",
    "KDA",
    "LMU",
    "LRU",
    "LSSL",
    "LSTM",
    "M2RNN",
    "MGU",
    "MLP",
    "MLSTM",
    "QRNN",
    "RGLRU",
    "RWKV4",
    "RWKV5",
    "RWKV6",
    "RWKV7",
    "S4",
    "S4D",
    "S5",
    "SLSTM",
    "SRU",
    "TCNCA",
    "UGRNN",
    "Aaren",
    "About",
    "Attention",
    "Based",
    "Bilinear",
    "BlockLRNN",
    "Call",
    "DeltaNet",
    "DeltaProduct",
    "Elman",
    "FastWeights",
    "ForgettingAttention",
    "GatedDeltaNet",
    "GatedMLP",
    "ImplicitSSM",
    "IndRNN",
    "LatentAttention",
    "Layer",
    "Leaf",
    "LightNet",
    "LinearAttention",
    "LogLinear",
    "Mamba",
    "Mamba2",
    "Mega",
    "MinGRU",
    "MinLSTM",
    "MoE",
    "MoM",
    "ParaGRU",
    "ParaLSTM",
    "PeepholeLSTM",
    "RWKV4ChannelMix",
    "RWKV6ChannelMix",
    "RWKV7ChannelMix",
    "ReLUAttention",
    "ReLiT",
    "Retention",
    "ShortConv",
    "Traits",
    "URPEAttention",
    "WaveRNN",
    "build",
    "catalogue",
    "find",
    "register",
]
