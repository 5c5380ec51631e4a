"""The config.json of released checkpoints: their names and options, spelled as they are, at tiny sizes."""

from __future__ import annotations

from math import inf
from typing import Any

__all__ = ["OF_FLA", "RELEASED"]

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 96}
ATTENTION = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
STEPS = {"time_step_floor": 1e-4, "time_step_max": 0.1, "time_step_min": 0.001}
MAMBA = {
    **SIZES, **STEPS, "conv_kernel": 4, "expand": 2, "hidden_act": "silu", "initializer_range": 0.1,
    "layer_norm_epsilon": 1e-5, "rescale_prenorm_residual": False, "residual_in_fp32": True, "state_size": 8,
    "time_step_init_scheme": "random", "time_step_rank": 3, "time_step_scale": 1.0, "torch_dtype": "bfloat16",
    "transformers_version": "4.43.0.dev0", "use_bias": False, "use_cache": True, "use_conv_bias": True,
}  # fmt: skip
QWEN = {
    **SIZES, **ATTENTION, "attention_bias": False, "attention_dropout": 0.0, "full_attention_interval": 2,
    "head_dim": 16, "hidden_act": "silu", "linear_conv_kernel_dim": 4, "linear_key_head_dim": 8,
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_value_head_dim": 8,
    "max_position_embeddings": 262144, "mlp_only_layers": [], "rms_norm_eps": 1e-6, "use_cache": True,
}  # fmt: skip
LFM2 = {
    **SIZES, "block_auto_adjust_ff_dim": True, "block_dim": 32, "block_ff_dim": 96, "block_ffn_dim_multiplier": 1.0,
    "block_mlp_init_scale": 1.0, "block_multiple_of": 16, "block_norm_eps": 1e-5, "block_out_init_scale": 1.0,
    "block_use_swiglu": True, "block_use_xavier_init": True, "bos_token_id": 1, "conv_L_cache": 3, "conv_bias": False,
    "conv_dim": 32, "conv_dim_out": 32, "conv_use_xavier_init": True, "eos_token_id": 7, "model_type": "lfm2",
    "norm_eps": 1e-5, "num_attention_heads": 4, "num_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
    "use_pos_enc": True,
}  # fmt: skip
FALCON_H1 = {
    **SIZES, **ATTENTION, "attention_bias": False, "attention_in_multiplier": 1.0, "attention_out_multiplier": 0.9375,
    "attn_layer_indices": None, "embedding_multiplier": 5.656854249492381, "head_dim": 8, "hidden_act": "silu",
    "key_multiplier": 0.39062499999999994, "lm_head_multiplier": 0.0390625, "mamba_chunk_size": 128,
    "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 8, "mamba_d_ssm": 48, "mamba_d_state": 8,
    "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 6, "mamba_norm_before_gate": False,
    "mamba_proj_bias": False, "mamba_rms_norm": False, "mamba_use_mlp": True, "mlp_bias": False,
    "mlp_expansion_factor": 8, "mlp_multipliers": [0.8838834764831844, 0.5859375], "model_type": "falcon_h1",
    "num_logits_to_keep": 1, "projectors_bias": False, "rms_norm_eps": 1e-5, "rope_scaling": None,
    "rope_theta": 100000000000.0, "sliding_window": None, "ssm_in_multiplier": 1.25,
    "ssm_multipliers": [0.3535533905932738, 0.25, 0.3535533905932738, 0.5, 0.3535533905932738],
    "ssm_out_multiplier": 0.23570226039551587, **STEPS, "time_step_rank": "auto", "torch_dtype": "bfloat16",
}  # fmt: skip
OLMO = {
    **SIZES, **ATTENTION, "hidden_act": "silu", "layer_types": ["linear_attention", "full_attention"],
    "linear_a_log_max": 16.0, "linear_a_log_min": 0.0, "linear_allow_neg_eigval": True, "linear_conv_kernel_dim": 4,
    "linear_dt_init_floor": 1e-4, "linear_dt_max": 0.1, "linear_dt_min": 0.001, "linear_key_head_dim": 6,
    "linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_value_head_dim": 12, "model_type": "olmo_hybrid",
    "pad_token_id": None, "eos_token_id": None, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip
JAMBA = {
    **SIZES, **ATTENTION, "attn_layer_offset": 1, "attn_layer_period": 4, "expert_layer_offset": 1,
    "expert_layer_period": 2, "hidden_act": "silu", "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_state": 8,
    "mamba_dt_rank": 2, "mamba_expand": 2, "mamba_proj_bias": False, "model_type": "jamba", "num_experts": 4,
    "num_experts_per_tok": 2, "num_hidden_layers": 4, "output_router_logits": False, "rms_norm_eps": 1e-6,
    "router_aux_loss_coef": 0.001, "sliding_window": None, "tie_word_embeddings": False, "use_mamba_kernels": True,
}  # fmt: skip
LLAMA = {
    **SIZES, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu", "initializer_range": 0.02,
    "intermediate_size": 48, "max_position_embeddings": 2048, "model_type": "llama", "num_attention_heads": 4,
    "pretraining_tp": 1, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "torch_dtype": "float16",
}  # fmt: skip
STRETCHED = {"high_freq_factor": 4.0, "low_freq_factor": 1.0, "rope_type": "llama3"}

RELEASED: dict[str, dict[str, Any]] = {
    "state-spaces/mamba-130m-hf": {
        **MAMBA, "d_inner": 64, "d_model": 32, "fused_add_norm": True, "intermediate_size": 64, "model_type": "mamba",
        "n_layer": 2, "pad_vocab_size_multiple": 8, "rms_norm": True, "ssm_cfg": {},
    },
    "tiiuae/falcon-mamba-7b": {
        **MAMBA, "expand": 16, "intermediate_size": 64, "mixer_rms_eps": 1e-6, "model_type": "falcon_mamba",
        "tie_word_embeddings": False,
    },
    "mistralai/Mamba-Codestral-7B-v0.1": {
        **MAMBA, "chunk_size": 256, "head_dim": 16, "intermediate_size": 64, "model_type": "mamba2", "n_groups": 2,
        "norm_before_gate": True, "num_heads": 4, "rms_norm": True, "tie_word_embeddings": False,
        "time_step_limit": [0.0, inf],
    },
    "RWKV/rwkv-4-169m-pile": {
        **SIZES, "attention_hidden_size": 32, "bos_token_id": 0, "context_length": 1024, "eos_token_id": 0,
        "intermediate_size": 128, "layer_norm_epsilon": 1e-5, "model_type": "rwkv", "rescale_every": 6,
        "tie_word_embeddings": False,
    },
    "google/recurrentgemma-2b": {
        **SIZES, "_block_types": ["recurrent", "recurrent", "attention"], "attention_bias": False,
        "attention_window_size": 16, "conv1d_width": 4, "embeddings_scale_by_sqrt_dim": True,
        "final_w_init_variance_scale": 0.0769, "head_dim": 16, "hidden_activation": "gelu_pytorch_tanh",
        "intermediate_size": 96, "logits_soft_cap": 30.0, "lru_width": 32, "model_type": "recurrent_gemma",
        "num_attention_heads": 2, "num_hidden_layers": 3, "num_key_value_heads": 1, "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "w_init_variance_scale": 0.01,
    },
    "NX-AI/xLSTM-7b": {
        "add_embedding_dropout": False, "add_forward_backend_padding": False, "add_out_norm": True,
        "add_post_blocks_norm": True, "add_post_norm": False, "add_qk_norm": False,
        "autocast_kernel_dtype": "bfloat16", "cell_norm_eps": 1e-6, "chunk_size": 64,
        "chunkwise_kernel": "chunkwise--native_autograd", "embedding_dim": 128, "eps": 1e-6,
        "ffn_proj_factor": 2.667, "ffn_round_up_to_multiple_of": 64, "force_bos_token_insert": True,
        "forward_backend_name": "chunkwise--triton_limit_chunk", "gate_soft_cap": 15.0, "head_dim": 32,
        "hidden_size": 128, "igate_bias_init_range": -10.0, "inference_state_dtype": "float32",
        "max_inference_chunksize": 16384, "mlstm_round_up_to_multiple_of": 64, "mode": "inference",
        "model_type": "xlstm", "norm_eps": 1e-6, "norm_reduction_force_float32": True, "num_blocks": 2,
        "num_heads": 4, "num_hidden_layers": 2, "output_logit_soft_cap": 30.0, "qk_dim_factor": 0.5,
        "return_last_states": True, "sequence_kernel": "native_sequence__native", "step_kernel": "native",
        "tie_word_embeddings": False, "use_bias": False, "v_dim_factor": 1.0, "vocab_size": 96,
        "weight_mode": "single",
    },
    "Qwen/Qwen3-Next-80B-A3B-Instruct": {
        **QWEN, "decoder_sparse_step": 1, "model_type": "qwen3_next", "moe_intermediate_size": 24,
        "norm_topk_prob": True, "num_experts": 8, "num_experts_per_tok": 3, "output_router_logits": False,
        "partial_rotary_factor": 0.25, "rope_scaling": None, "rope_theta": 10000000, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 24, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "use_sliding_window": False,
    },
    "Qwen/Qwen3.5-0.8B, its text": {
        **QWEN, "attn_output_gate": True, "dtype": "bfloat16", "mamba_ssm_dtype": "float32",
        "model_type": "qwen3_5_text", "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False,
        "tie_word_embeddings": True,
        "rope_parameters": {
            "mrope_interleaved": True, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
            "rope_theta": 10000000, "rope_type": "default",
        },
    },
    "Qwen/Qwen3.5-35B-A3B, its text": {
        **{name: value for name, value in QWEN.items() if name != "intermediate_size"}, "attn_output_gate": True,
        "dtype": "bfloat16", "eos_token_id": 81, "mamba_ssm_dtype": "float32", "model_type": "qwen3_5_moe_text",
        "moe_intermediate_size": 24, "mtp_num_hidden_layers": 1, "mtp_use_dedicated_embeddings": False,
        "num_experts": 8, "num_experts_per_tok": 3, "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 24, "tie_word_embeddings": False,
        "layer_types": ["linear_attention", "full_attention"],
        "rope_parameters": {
            "mrope_interleaved": True, "mrope_section": [11, 11, 10], "partial_rotary_factor": 0.25,
            "rope_theta": 10000000, "rope_type": "default",
        },
    },
    "moonshotai/Kimi-Linear-48B-A3B-Instruct": {
        **SIZES, "architectures": ["KimiLinearForCausalLM"], "bos_token_id": 81, "dtype": "bfloat16",
        "auto_map": {"AutoConfig": "configuration_kimi.KimiLinearConfig"}, "eos_token_id": 82, "head_dim": 9,
        "first_k_dense_replace": 1, "hidden_act": "silu", "initializer_range": 0.02, "intermediate_size": 48,
        "kv_lora_rank": 12,
        "linear_attn_config": {
            "full_attn_layers": [3, 4], "head_dim": 8, "kda_layers": [1, 2], "num_heads": 3,
            "short_conv_kernel_size": 4,
        },
        "mla_use_nope": True, "model_max_length": 1048576, "model_type": "kimi_linear", "moe_intermediate_size": 16,
        "moe_layer_freq": 1, "moe_renormalize": True, "moe_router_activation_func": "sigmoid",
        "num_attention_heads": 4, "num_expert_group": 1, "num_experts": 8, "num_experts_per_token": 3,
        "num_hidden_layers": 4, "num_key_value_heads": 4, "num_nextn_predict_layers": 0, "num_shared_experts": 1,
        "pad_token_id": 83, "q_lora_rank": None, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "rms_norm_eps": 1e-5,
        "rope_scaling": None, "rope_theta": 10000.0, "routed_scaling_factor": 2.446, "tie_word_embeddings": False,
        "topk_group": 1, "use_cache": True, "use_grouped_topk": True, "v_head_dim": 8,
    },
    "LiquidAI/LFM2-1.2B": {**LFM2, "full_attn_idxs": [1], "rope_theta": 1000000.0, "torch_dtype": "bfloat16"},
    "LFM2, untied by the older name": {
        **LFM2, "dtype": "bfloat16", "intermediate_size": 48, "layer_types": ["full_attention", "conv"],
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "theta": 10000.0,
        "tie_embedding": False, "tie_word_embeddings": True,
    },
    "LiquidAI/LFM2-8B-A1B": {
        **SIZES, "bos_token_id": 1, "conv_L_cache": 3, "conv_bias": False, "dtype": "bfloat16", "eos_token_id": 7,
        "initializer_range": 0.02, "intermediate_size": 48, "layer_types": ["conv", "full_attention", "conv"],
        "max_position_embeddings": 128000, "model_type": "lfm2_moe", "moe_intermediate_size": 24, "norm_eps": 1e-5,
        "norm_topk_prob": True, "num_attention_heads": 4, "num_dense_layers": 2, "num_experts": 4,
        "num_experts_per_tok": 2, "num_hidden_layers": 3, "num_key_value_heads": 2, "pad_token_id": 0,
        "rope_theta": 1000000.0, "routed_scaling_factor": 1.0, "use_cache": True, "use_expert_bias": True,
    },
    "ibm-ai-platform/Bamba-9B": {
        **SIZES, **ATTENTION, "attn_layer_indices": [1], "attn_rotary_emb": 4, "hidden_act": "silu",
        "mamba_chunk_size": 256, "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 16, "mamba_d_state": 8,
        "mamba_expand": 2, "mamba_n_groups": 1, "mamba_n_heads": 4, "mamba_proj_bias": False, "model_type": "bamba",
        "num_logits_to_keep": 1, "rms_norm_eps": 1e-5, "rope_scaling": None, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "use_mamba_kernels": True,
    },
    "tiiuae/Falcon-H1-0.5B-Base": FALCON_H1,
    "tiiuae/Falcon-H1-34B-Base": {
        **FALCON_H1, "attention_in_multiplier": 0.9, "lm_head_multiplier": 0.0078125, "mamba_n_groups": 2,
        "mamba_rms_norm": True,
    },
    "Falcon-H1, as many key heads": {**FALCON_H1, "num_key_value_heads": None},
    "allenai/Olmo-Hybrid-7B": {**OLMO, "rope_parameters": {"rope_theta": None}},
    "OLMo Hybrid, no word of positions": {**OLMO, "rope_parameters": None, "linear_use_gate": True},
    "OLMo Hybrid, the base at the top": {**OLMO, "rope_theta": 500.0},
    "ai21labs/Jamba-v0.1": {
        **JAMBA, "auto_map": {"AutoConfig": "configuration_jamba.JambaConfig"}, "calc_logits_for_entire_prompt": False,
        "mamba_inner_layernorms": True, "n_ctx": 262144,
    },
    "ai21labs/AI21-Jamba-Reasoning-3B": {
        **JAMBA, "num_experts": 1, "num_experts_per_tok": 1, "num_logits_to_keep": 1, "tie_word_embeddings": True,
    },
    "huggyllama/llama-7b": {**LLAMA, "max_sequence_length": 2048},
    "meta-llama/Llama-3.1-8B-Instruct": {
        **LLAMA, "attention_bias": False, "eos_token_id": [81, 82, 83], "mlp_bias": False, "num_key_value_heads": 2,
        "rope_scaling": {**STRETCHED, "factor": 8.0, "original_max_position_embeddings": 32}, "rope_theta": 500000.0,
    },
    "meta-llama/Llama-3.2-1B": {
        **LLAMA, "head_dim": 16, "num_key_value_heads": 2, "tie_word_embeddings": True, "rope_theta": 500000.0,
        "rope_scaling": {**STRETCHED, "factor": 32.0, "original_max_position_embeddings": 64},
    },
    "HuggingFaceTB/SmolLM2-135M": {
        **LLAMA, "is_llama_config": True, "num_key_value_heads": 2, "rope_interleaved": False, "rope_scaling": None,
        "rope_theta": 100000, "tie_word_embeddings": True, "transformers.js_config": {"kv_cache_dtype": {}},
    },
    "Llama, stretched as before rope_type": {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}},
}  # fmt: skip
GATED = {
    "attn_mode": "chunk", "elementwise_affine": True, "fuse_cross_entropy": True, "fuse_norm": True,
    "hidden_act": "swish", "hidden_ratio": 4, "intermediate_size": None, "norm_eps": 1e-6, "vocab_size": 96,
    "hidden_size": 256, "num_hidden_layers": 2, "tie_word_embeddings": False, "use_cache": True,
}  # fmt: skip
OF_FLA: dict[str, dict[str, Any]] = {
    "fla-hub/gla-1.3B-100B": {
        **GATED, "clamp_min": None, "expand_k": 0.5, "expand_v": 1, "model_type": "gla", "num_heads": 4,
        "use_gk": True, "use_gv": False,
    },
    "fla-hub/retnet-1.3B-100B": {**GATED, "expand_k": 1, "expand_v": 2, "model_type": "retnet", "num_heads": 4},
    "fla-hub/hgrn2-1.3B-100B": {**GATED, "expand_ratio": 128, "model_type": "hgrn2", "use_lower_bound": True},
    "fla-hub/delta_net-1.3B-100B": {
        **GATED, "conv_size": 4, "expand_k": 1, "expand_v": 1, "model_type": "delta_net", "num_heads": 16,
        "qk_activation": "silu", "qk_norm": "l2", "use_beta": True, "use_gate": False, "use_output_norm": True,
        "use_short_conv": True,
    },
    "fla-hub/rwkv7-168M-pile": {
        "a_low_rank_dim": 64, "attn": None, "attn_mode": "chunk", "decay_low_rank_dim": 64, "fuse_norm": False,
        "gate_low_rank_dim": 128, "head_dim": 64, "hidden_act": "sqrelu", "hidden_ratio": 4.0, "hidden_size": 128,
        "initializer_range": 0.006, "intermediate_size": 512, "model_type": "rwkv7", "norm_bias": True,
        "norm_eps": 1e-5, "norm_first": True, "num_heads": 32, "num_hidden_layers": 2, "tie_word_embeddings": False,
        "v_low_rank_dim": 32, "value_dim": [128, 128], "vocab_size": 96,
    },
}  # fmt: skip
