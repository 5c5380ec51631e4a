"""Falcon-H1: heads of Mamba-2 and of attention side by side in every block.

The config has a multiplier for nearly every activation. They are linear in a weight next to them, and go into it as it
is read; only the embeddings keep theirs, since their weights may be those of the logits too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from ritornello.hub import mamba2
from ritornello.hub.architecture import Architecture
from ritornello.hub.bamba import IGNORED, SHARED
from ritornello.hub.jamba import HYBRID_BLOCK, HYBRID_ROWS
from ritornello.hub.llama import ATTENTION, MLP
from ritornello.hub.settings import Key, Rule, Same, Settings, uniform
from ritornello.typing import Tensor

__all__ = ["FALCON_H1"]

MULTIPLIERS = (
    "attention_in_multiplier", "attention_out_multiplier", "key_multiplier", "lm_head_multiplier", "mlp_multipliers",
    "ssm_in_multiplier", "ssm_multipliers", "ssm_out_multiplier",
)  # fmt: skip


def _norm(config: Mapping[str, Any]) -> str:
    if not config.get("mamba_rms_norm"):
        return "none"
    return "gate_last" if config.get("mamba_norm_before_gate", True) else "gate_first"


def _channels(config: Mapping[str, Any]) -> int:
    size = config.get("mamba_d_ssm", 1024)
    return config.get("mamba_expand", 2) * config["hidden_size"] if size is None else size


KEYS = (
    *SHARED,
    Rule("mamba2.channels", _channels, "mamba_d_ssm", lambda ours: ours["mamba2.channels"], uses=("mamba_expand",)),
    Rule("mamba2.norm", _norm, "mamba_rms_norm", lambda ours: ours["mamba2.norm"] != "none"),
    Same("mamba_norm_before_gate", lambda ours: ours["mamba2.norm"] == "gate_last", also=(True, False)),
    Same("mamba_d_head", lambda ours: ours["mamba2.channels"] // ours["mamba2.heads"], also=("auto",)),
    Key("mamba_proj_bias", "mamba2.bias", False),
    Key("projectors_bias", "mamba2.out_bias", False),
    Same("mamba_use_mlp", True, written=False),
    Same("attn_layer_indices", None, written=False),
    Rule(
        "embedding_scale",
        lambda config: None if config.get("embedding_multiplier") == 1 else config.get("embedding_multiplier"),
        "embedding_multiplier",
        lambda ours: 1.0 if ours["embedding_scale"] is None else ours["embedding_scale"],
    ),
)


def _folded(config: Mapping[str, Any]) -> dict[str, Callable[[Tensor], Tensor]]:
    """Patterns of their names → what a multiplier does to the tensor."""

    def of(name: str) -> float:
        return config.get(f"{name}_multiplier") or 1.0

    gate, down = config.get("mlp_multipliers") or (1.0, 1.0)
    sections = config.get("ssm_multipliers") or (1.0,) * 5
    channels, heads = _channels(config), config.get("mamba_n_heads", 128)
    shared = config.get("mamba_n_groups", 1) * config.get("mamba_d_state", 256)

    def rows(tensor: Tensor, times: float = 1.0) -> Tensor:
        """z, x, B, C, Δ, each by its own multiplier."""
        counts = torch.tensor([channels, channels, shared, shared, heads])
        factors = torch.tensor(sections, dtype=torch.float32).repeat_interleave(counts) * times
        return (tensor * factors.view(-1, *[1] * (tensor.dim() - 1))).to(tensor.dtype)

    factors = {
        r".*self_attn\.[qv]_proj\.weight": of("attention_in"),
        r".*self_attn\.k_proj\.weight": of("attention_in") * of("key"),
        r".*self_attn\.k_proj\.bias": of("key"),
        r".*self_attn\.o_proj\..*": of("attention_out"),
        r".*mamba\.out_proj\..*": of("ssm_out"),
        r".*gate_proj\..*": gate,
        r".*down_proj\..*": down,
        r".*final_layernorm\.weight": of("lm_head"),
    }
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        name: lambda t, factor=factor: t * factor for name, factor in factors.items() if factor != 1
    }
    if of("ssm_in") != 1 or set(sections) != {1}:
        changes[r".*mamba\.in_proj\.weight"] = lambda t: rows(t, of("ssm_in"))
        changes[r".*mamba\.in_proj\.bias"] = rows
    return changes


FALCON_H1 = Architecture(
    name="falcon_h1",
    model="FalconH1ForCausalLM",
    settings=Settings(
        KEYS,
        **uniform("mamba2+attention", "gated_mlp"),
        ignored=(
            *IGNORED, "mlp_expansion_factor", "time_step_floor", "time_step_max", "time_step_min", "time_step_rank",
        ),
        fixed={"parallel.combine": "sum"},
        consumed=MULTIPLIERS,
    ),
    rows=HYBRID_ROWS,
    block=HYBRID_BLOCK,
    layers={
        "mamba2": ("model.layers.{i}.mamba.", mamba2.MIXER),
        "attention": ("model.layers.{i}.self_attn.", ATTENTION),
        "gated_mlp": ("model.layers.{i}.feed_forward.", MLP),
    },
    folded=_folded,
)  # fmt: skip
