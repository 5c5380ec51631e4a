"""Mamba-2 as transformers keeps it."""

from __future__ import annotations

from math import inf

from ritornello.hub.architecture import Architecture
from ritornello.hub.mamba import EMBEDDINGS
from ritornello.hub.settings import Key, Same, Settings, uniform
from ritornello.hub.table import same, squeezed

__all__ = ["MAMBA2", "MIXER", "STEPS"]

STEPS = Same("time_step_limit", [0.0, inf], also=([0, inf], [0.0, None]), written=False)
"""Step sizes that are not clamped."""

KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("num_heads", "mamba2.heads", 128),
    Key("n_groups", "mamba2.groups", 8),
    Key("state_size", "mamba2.state_size", 128),
    Key("conv_kernel", "mamba2.conv_width", 4),
    Key("expand", "mamba2.expand", 2),
    Key("use_bias", ("mamba2.bias", "mamba2.out_bias"), False),
    Key("use_conv_bias", "mamba2.conv_bias", True),
    Key("layer_norm_epsilon", ("norm_eps", "mamba2.norm_eps"), 1e-5),
    Key("residual_in_fp32", "residual_float32", True),
    Key("tie_word_embeddings", "tied_embeddings", False),
    Same("head_dim", lambda ours: ours["mamba2.expand"] * ours["width"] // ours["mamba2.heads"]),
    Same("hidden_act", "silu", also=("swish",)),
    STEPS,
)
MIXER = (
    same("A_log", "decay.A_log"),
    same("dt_bias", "decay.dt_bias"),
    same("D"),
    same("in_proj.weight"),
    same("in_proj.bias"),
    squeezed("conv1d.weight", "conv.weight"),
    same("conv1d.bias", "conv.bias"),
    same("norm.weight"),
    same("out_proj.weight"),
    same("out_proj.bias"),
)
MAMBA2 = Architecture(
    name="mamba2",
    model="Mamba2ForCausalLM",
    settings=Settings(
        KEYS,
        **uniform("mamba2", None),
        ignored=(
            "chunk_size", "intermediate_size", "norm_before_gate", "rescale_prenorm_residual", "rms_norm",
            "time_step_floor", "time_step_init_scheme", "time_step_max", "time_step_min", "time_step_rank",
            "time_step_scale",
        ),
    ),
    rows=(
        EMBEDDINGS,
        same("backbone.norm_f.weight", "backbone.final_norm.weight"),
        same("lm_head.weight", "head.weight"),
    ),
    block=(same("backbone.layers.{i}.norm.weight", "backbone.blocks.{i}.mixer_norm.weight"),),
    layers={"mamba2": ("backbone.layers.{i}.mixer.", MIXER)},
)  # fmt: skip
