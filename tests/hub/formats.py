"""One tiny random model of transformers for each checkpoint format that is read and written: the oracles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

BASE = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
QWEN = {
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 6,
}
IGNORED_IDS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


@dataclass(frozen=True)
class Case:
    """A config of one format.

    Args:
        format: its name here, ``model_type`` there.
        cls: the prefix of transformers' model class.
        config: beside `BASE`.
        rows: how many rows at once transformers decodes from its cache without a mistake; 0: none.
        amount: how much the weights are perturbed.
        exact: whether what is saved has the numbers that were read, and not multiples of them.
    """

    format: str
    cls: str
    config: dict[str, Any] = field(default_factory=dict)
    rows: int = 2
    amount: float = 0.1
    exact: bool = True


CASES = {
    "llama": Case("llama", "Llama", {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}),
    "llama, tied, with biases": Case(
        "llama",
        "Llama",
        {
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "head_dim": 16,
            "mlp_bias": True,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_theta": 500.0, "rope_type": "default"},
        },
    ),
    "llama, stretched": Case(
        "llama",
        "Llama",
        {
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 100.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
            },
        },
    ),
    "llama, all stretched": Case(
        "llama",
        "Llama",
        {
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 3.0},
        },
    ),
    "llama, by YaRN": Case(
        "llama",
        "Llama",
        {
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "max_position_embeddings": 128,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 1000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 4.0,
                "mscale": 0.7,
                "mscale_all_dim": 0.4,
                "truncate": False,
            },
        },
    ),
    "llama, by YaRN's defaults": Case(
        "llama",
        "Llama",
        {
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
            "rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 8.0},
        },
    ),
    "mamba": Case("mamba", "Mamba", {"state_size": 8}),
    "mamba, with biases": Case(
        "mamba",
        "Mamba",
        {
            "use_bias": True,
            "use_conv_bias": False,
            "expand": 3,
            "conv_kernel": 3,
            "time_step_rank": 5,
            "tie_word_embeddings": False,
        },
    ),
    "falcon_mamba": Case("falcon_mamba", "FalconMamba", {"state_size": 8}),
    "mamba2": Case("mamba2", "Mamba2", {"num_heads": 4, "head_dim": 16, "n_groups": 2, "state_size": 8}),
    "mamba2, with biases": Case(
        "mamba2",
        "Mamba2",
        {
            "num_heads": 6,
            "head_dim": 16,
            "n_groups": 1,
            "expand": 3,
            "use_bias": True,
            "use_conv_bias": False,
            "tie_word_embeddings": True,
            "chunk_size": 16,
        },
    ),
    "jamba": Case(
        "jamba",
        "Jamba",
        {
            "num_hidden_layers": 4,
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attn_layer_period": 4,
            "attn_layer_offset": 2,
            "num_experts": 4,
            "mamba_d_state": 8,
        },
    ),
    "jamba, without experts": Case(
        "jamba",
        "Jamba",
        {
            "num_hidden_layers": 3,
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attn_layer_period": 9,
            "attn_layer_offset": 8,
            "num_experts": 1,
            "mamba_proj_bias": True,
        },
        rows=0,
    ),
    "bamba": Case(
        "bamba",
        "Bamba",
        {
            "num_hidden_layers": 3,
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "attn_layer_indices": [1],
            "mamba_n_heads": 4,
            "mamba_d_state": 8,
            "mamba_n_groups": 2,
        },
    ),
    "bamba, without attention": Case(
        "bamba",
        "Bamba",
        {
            "intermediate_size": 40,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "attn_layer_indices": [],
            "mamba_n_heads": 4,
            "mamba_d_state": 8,
        },
        rows=0,
    ),
    "falcon_h1": Case(
        "falcon_h1",
        "FalconH1",
        {
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "mamba_d_ssm": 48,
            "mamba_n_heads": 6,
            "mamba_d_state": 8,
            "mamba_n_groups": 2,
        },
    ),
    "falcon_h1, with multipliers": Case(
        "falcon_h1",
        "FalconH1",
        {
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "mamba_d_ssm": 48,
            "mamba_n_heads": 6,
            "mamba_d_state": 8,
            "mamba_rms_norm": True,
            "mamba_proj_bias": True,
            "projectors_bias": True,
            "attention_bias": True,
            "mlp_bias": True,
            "tie_word_embeddings": True,
            "attention_in_multiplier": 0.7,
            "attention_out_multiplier": 0.9,
            "key_multiplier": 1.5,
            "embedding_multiplier": 5.6,
            "lm_head_multiplier": 0.4,
            "mlp_multipliers": [0.8, 0.6],
            "ssm_in_multiplier": 1.25,
            "ssm_out_multiplier": 0.3,
            "ssm_multipliers": [0.35, 0.25, 0.2, 0.5, 0.4],
        },
        exact=False,
    ),
    "recurrent_gemma": Case(
        "recurrent_gemma",
        "RecurrentGemma",
        {
            "num_hidden_layers": 3,
            "intermediate_size": 96,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "attention_window_size": 16,
        },
    ),
    "recurrent_gemma, without attention": Case(
        "recurrent_gemma",
        "RecurrentGemma",
        {"intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 1, "block_types": ["recurrent"]},
        rows=0,
    ),
    "lfm2": Case(
        "lfm2",
        "Lfm2",
        {
            "intermediate_size": 96,
            "block_multiple_of": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "layer_types": ["conv", "full_attention"],
        },
    ),
    "lfm2, with biases": Case(
        "lfm2",
        "Lfm2",
        {
            "intermediate_size": 96,
            "block_auto_adjust_ff_dim": False,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "full_attn_idxs": [0],
            "conv_bias": True,
            "conv_L_cache": 5,
            "tie_word_embeddings": False,
        },
    ),
    "lfm2_moe": Case(
        "lfm2_moe",
        "Lfm2Moe",
        {
            "num_hidden_layers": 3,
            "intermediate_size": 48,
            "moe_intermediate_size": 24,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "layer_types": ["conv", "full_attention", "conv"],
            "num_dense_layers": 1,
            "num_experts": 6,
            "num_experts_per_tok": 4,
            "routed_scaling_factor": 1.5,
        },
    ),
    "lfm2_moe, without biases": Case(
        "lfm2_moe",
        "Lfm2Moe",
        {
            "moe_intermediate_size": 24,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "layer_types": ["full_attention", "conv"],
            "num_dense_layers": 0,
            "num_experts": 3,
            "num_experts_per_tok": 3,
            "use_expert_bias": False,
            "norm_topk_prob": False,
            "conv_bias": True,
            "tie_word_embeddings": False,
        },
    ),
    "qwen3_next": Case(
        "qwen3_next",
        "Qwen3Next",
        {
            **QWEN,
            "num_hidden_layers": 4,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
            "mlp_only_layers": [1],
        },
    ),
    "qwen3_5": Case(
        "qwen3_5_text",
        "Qwen3_5",
        {
            **QWEN,
            "attention_bias": True,
            "layer_types": ["linear_attention", "full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5},
        },
    ),
    "qwen3_5_moe": Case(
        "qwen3_5_moe_text",
        "Qwen3_5Moe",
        {
            **{name: size for name, size in QWEN.items() if name != "intermediate_size"},
            "layer_types": ["linear_attention", "full_attention"],
            "num_experts": 6,
            "num_experts_per_tok": 3,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 40,
        },
    ),
    "olmo_hybrid": Case(
        "olmo_hybrid",
        "OlmoHybrid",
        {
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
        },
    ),
    "olmo_hybrid, without positions": Case(
        "olmo_hybrid",
        "OlmoHybrid",
        {
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "attention_bias": True,
            "linear_allow_neg_eigval": False,
            "layer_types": ["full_attention", "linear_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": None},
        },
    ),
    "kimi_linear": Case(
        "kimi_linear",
        "KimiLinear",
        {
            "num_hidden_layers": 3,
            "intermediate_size": 48,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "kv_lora_rank": 12,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 6,
            "v_head_dim": 10,
            "linear_num_heads": 3,
            "linear_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention", "linear_attention"],
            "num_local_experts": 6,
            "num_experts_per_tok": 4,
            "moe_intermediate_size": 12,
            "n_shared_experts": 2,
        },
    ),
    "kimi_linear, experts in groups": Case(
        "kimi_linear",
        "KimiLinear",
        {
            "intermediate_size": 48,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "q_lora_rank": 20,
            "kv_lora_rank": 40,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 5,
            "v_head_dim": 8,
            "linear_num_heads": 2,
            "linear_head_dim": 16,
            "linear_conv_kernel_dim": 3,
            "layer_types": ["full_attention", "linear_attention"],
            "mlp_layer_types": ["sparse", "dense"],
            "num_local_experts": 8,
            "num_experts_per_tok": 3,
            "n_group": 4,
            "topk_group": 2,
            "norm_topk_prob": False,
            "routed_scaling_factor": 0.7,
            "moe_intermediate_size": 16,
        },
    ),
    # transformers mixes the rows of a batch when it decodes a token, and knows only states of the model's width.
    "rwkv": Case("rwkv", "Rwkv", {"num_hidden_layers": 4, "rescale_every": 2}, rows=1),
    "rwkv, wider": Case(
        "rwkv", "Rwkv", {"attention_hidden_size": 48, "intermediate_size": 40, "rescale_every": 0}, rows=0
    ),
    "xlstm": Case("xlstm", "xLSTM", {"hidden_size": 128, "num_heads": 2}),
    # transformers ties nothing here, whatever the config says.
    "xlstm, said to be tied": Case(
        "xlstm",
        "xLSTM",
        {"hidden_size": 128, "num_heads": 4, "qk_dim_factor": 1.0, "v_dim_factor": 0.5, "tie_word_embeddings": True},
    ),
}


def reference(case: Case) -> Any:
    """transformers' model, every weight moved away from where it starts."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(case.format, **BASE | IGNORED_IDS | case.config)
    model = getattr(transformers, f"{case.cls}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * case.amount)
        saved = model.state_dict()
        for name, buffer in model.named_buffers():
            if name in saved:
                buffer.add_(torch.randn_like(buffer) * case.amount)
    return model
