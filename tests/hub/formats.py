"""One tiny random model of transformers for each checkpoint format that is read and written: the oracles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

BASE = {"vocab_size": 96, "hidden_size": 32, "num_hidden_layers": 2}
IGNORED_IDS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}


@dataclass(frozen=True)
class Case:
    """A config of one format.

    Args:
        format: its name here, ``model_type`` there.
        cls: the prefix of transformers' config and model classes.
        config: beside `BASE`.
        generates: whether transformers' cached decoding can be trusted as an oracle.
        amount: how much the weights are perturbed.
    """

    format: str
    cls: str
    config: dict[str, Any] = field(default_factory=dict)
    generates: bool = True
    amount: float = 0.1


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
}


def reference(case: Case) -> Any:
    """transformers' model, every weight moved away from where it starts."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{case.cls}Config")(**BASE | IGNORED_IDS | case.config)
    model = getattr(transformers, f"{case.cls}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * case.amount)
    return model
