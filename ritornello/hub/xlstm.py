"""xLSTM 7B as transformers keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ritornello.hub.architecture import Architecture
from ritornello.hub.fla import per_head
from ritornello.hub.settings import Key, Rule, Same, Settings, uniform
from ritornello.hub.table import joined, same

__all__ = ["XLSTM"]


NORMS = {"add_out_norm": True, "add_post_blocks_norm": True, "add_post_norm": False, "add_qk_norm": False}


def _hidden(config: Mapping[str, Any]) -> int:
    of = config.get("ffn_round_up_to_multiple_of", 64)
    return int((config["hidden_size"] * config.get("ffn_proj_factor", 2.667) + of - 1) // of * of)


KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("num_heads", "mlstm.heads", 8),
    per_head("mlstm.key_size", "qk_dim_factor", 0.5),
    per_head("mlstm.value_size", "v_dim_factor", 1.0),
    Rule("gated_mlp.hidden", _hidden, "ffn_proj_factor", lambda ours: ours["gated_mlp.hidden"] / ours["width"]),
    # Rounded up to a multiple of itself, the size is whole whatever the share's last digit.
    Rule("gated_mlp.hidden", _hidden, "ffn_round_up_to_multiple_of", lambda ours: ours["gated_mlp.hidden"]),
    Key("gate_soft_cap", "mlstm.gate_soft_cap", 15.0),
    Key("output_logit_soft_cap", "logits_soft_cap", 30.0),
    Key("norm_eps", ("norm_eps", "mlstm.norm_eps"), 1e-6),
    Key("eps", "mlstm.eps", 1e-6),
    Same("use_bias", False),
    Same("weight_mode", "single"),
    Same("cell_norm_eps", lambda ours: ours["mlstm.norm_eps"], written=False),
    *(Same(name, wanted, written=False) for name, wanted in NORMS.items()),
)
IGNORED = (
    "add_embedding_dropout", "add_forward_backend_padding", "autocast_kernel_dtype", "chunk_size", "chunkwise_kernel",
    "force_bos_token_insert", "forward_backend_name", "head_dim", "igate_bias_init_range", "inference_state_dtype",
    "max_inference_chunksize", "mlstm_round_up_to_multiple_of", "mode", "norm_reduction_force_float32",
    "return_last_states", "sequence_kernel", "step_kernel",
    "tie_word_embeddings",  # transformers ties nothing here, whatever it says
)  # fmt: skip
XLSTM = Architecture(
    name="xlstm",
    model="xLSTMForCausalLM",
    settings=Settings(
        KEYS,
        **uniform("mlstm", "gated_mlp"),
        older={"embedding_dim": "hidden_size", "num_blocks": "num_hidden_layers"},
        ignored=IGNORED,
        fixed={"tied_embeddings": False},
    ),
    rows=(
        same("backbone.embeddings.weight", "embedding.weight"),
        same("backbone.out_norm.weight", "backbone.final_norm.weight"),
        same("lm_head.weight", "head.weight"),
    ),
    block=(
        same("backbone.blocks.{i}.norm_mlstm.weight", "backbone.blocks.{i}.mixer_norm.weight"),
        same("backbone.blocks.{i}.norm_ffn.weight", "backbone.blocks.{i}.ffn_norm.weight"),
    ),
    layers={
        "mlstm": (
            "backbone.blocks.{i}.mlstm_layer.",
            lambda layer: (
                joined(
                    ("q.weight", "k.weight", "v.weight"),
                    "qkv_proj.weight",
                    (layer.size.keys, layer.size.keys, layer.size.values),
                ),
                joined(("igate_preact.weight", "fgate_preact.weight"), "if_proj.weight"),
                joined(("igate_preact.bias", "fgate_preact.bias"), "if_proj.bias"),
                same("ogate_preact.weight", "gate_proj.weight"),
                same("multihead_norm.weight", "norm_weight"),
                same("out_proj.weight"),
            ),
        ),
        "gated_mlp": (
            "backbone.blocks.{i}.ffn.",
            (
                joined(("proj_up_gate.weight", "proj_up.weight"), "gate_up_proj.weight"),
                same("proj_down.weight", "out_proj.weight"),
            ),
        ),
    },
)
