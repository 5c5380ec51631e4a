"""Mamba and Falcon-Mamba as transformers keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ritornello.hub.architecture import Architecture
from ritornello.hub.settings import Key, Rule, Same, Settings, uniform
from ritornello.hub.table import same, squeezed

__all__ = ["FALCON_MAMBA", "MAMBA"]


def _expand(config: Mapping[str, Any]) -> int:
    """The size counts where it is told: falcon-mamba-7b says expand = 16 beside 8,192 channels of 4,096."""
    size, width = config.get("intermediate_size"), config["hidden_size"]
    if size is None:
        return config.get("expand", 2)
    if size % width:
        raise ValueError(f"intermediate_size = {size} is no multiple of hidden_size = {width}")
    return size // width


KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("state_size", "mamba.state_size", 16),
    Key("conv_kernel", "mamba.conv_width", 4),
    Rule("mamba.expand", _expand, "expand", lambda ours: ours["mamba.expand"], uses=("intermediate_size",)),
    Key("time_step_rank", "mamba.dt_rank", read=lambda rank: None if rank == "auto" else rank, default=None),
    Key("use_bias", "mamba.bias", False),
    Key("use_conv_bias", "mamba.conv_bias", True),
    Key("layer_norm_epsilon", "norm_eps", 1e-5),
    Key("residual_in_fp32", "residual_float32", True),
    Same("hidden_act", "silu", also=("swish",)),
)
IGNORED = (
    "d_inner", "d_model", "fused_add_norm", "n_layer", "pad_vocab_size_multiple", "rescale_prenorm_residual",
    "rms_norm", "ssm_cfg", "time_step_floor", "time_step_init_scheme", "time_step_max", "time_step_min",
    "time_step_scale", "use_associative_scan", "use_bcdt_rms", "use_falcon_mambapy", "use_mambapy",
)  # fmt: skip
EMBEDDINGS = same("backbone.embeddings.weight", "embedding.weight", older="backbone.embedding.weight")
"""The older name is that of the authors' own files."""
MIXER = (
    same("A_log"),
    same("D"),
    same("in_proj.weight"),
    same("in_proj.bias"),
    squeezed("conv1d.weight", "conv.weight"),
    same("conv1d.bias", "conv.bias"),
    same("x_proj.weight"),
    same("dt_proj.weight"),
    same("dt_proj.bias", "dt_bias"),
    same("out_proj.weight"),
    same("out_proj.bias"),
)


def _architecture(name: str, model: str, *more: Key, tied: bool) -> Architecture:
    keys = (*KEYS, Key("tie_word_embeddings", "tied_embeddings", tied), *more)
    return Architecture(
        name=name,
        model=model,
        settings=Settings(keys, **uniform("mamba", None), ignored=IGNORED),
        rows=(
            EMBEDDINGS,
            same("backbone.norm_f.weight", "backbone.final_norm.weight"),
            same("lm_head.weight", "head.weight"),
        ),
        block=(same("backbone.layers.{i}.norm.weight", "backbone.blocks.{i}.mixer_norm.weight"),),
        layers={"mamba": ("backbone.layers.{i}.mixer.", MIXER)},
    )


MAMBA = _architecture("mamba", "MambaForCausalLM", tied=True)
FALCON_MAMBA = _architecture(
    "falcon_mamba", "FalconMambaForCausalLM", Key("mixer_rms_eps", "mamba.norm_eps", 1e-6), tied=True
)
