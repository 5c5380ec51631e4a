"""Rows of checkpoints: a model of transformers, of 4 layers and about ten million weights, beside ours loaded from its
files. Both read a prompt, and both decode greedily."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import torch

from ritornello import hub
from ritornello.lab.bench.case import Case, Comparison, Row, Sizes, Work
from ritornello.lab.bench.peers import peer
from ritornello.models import LanguageModel
from ritornello.typing import Tensor

__all__ = ["OP", "ROWS"]

OP = "checkpoint"
PREFILL, DECODE = "prefill", "decode"
TOKENS, PROMPT = 16, 32
CACHES = ("past_key_values", "cache_params", "state")
"""Where an output of transformers has what the next call is given back."""

COMMON = {"vocab_size": 4096, "hidden_size": 384, "num_hidden_layers": 4, "pad_token_id": None, "bos_token_id": None,
          "eos_token_id": None}  # fmt: skip
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2}
MIXED = HEADS | {"intermediate_size": 1024}
DELTA = {"linear_num_key_heads": 4, "linear_num_value_heads": 4, "linear_key_head_dim": 64, "linear_value_head_dim": 64}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256}
DUAL = {"mamba_n_heads": 12, "mamba_d_state": 64}

# model_type → the prefix of transformers' class, and the config beside COMMON
FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", MIXED),
    "mamba": ("Mamba", {}),
    "falcon_mamba": ("FalconMamba", {}),
    "mamba2": ("Mamba2", {"num_heads": 12, "head_dim": 64, "n_groups": 1, "state_size": 64}),
    "jamba": ("Jamba", MIXED | {"attn_layer_period": 4, "attn_layer_offset": 2, "num_experts": 2}),
    "bamba": ("Bamba", MIXED | DUAL | {"attn_layer_indices": [2]}),
    "falcon_h1": ("FalconH1", MIXED | DUAL | {"mamba_d_ssm": 768}),
    "recurrent_gemma": ("RecurrentGemma", HEADS | {"intermediate_size": 2048, "attention_window_size": 512}),
    "lfm2": ("Lfm2", MIXED | {"layer_types": ["conv", "conv", "full_attention", "conv"]}),
    "lfm2_moe": ("Lfm2Moe", MIXED | EXPERTS | {"layer_types": ["conv", "conv", "full_attention", "conv"],
                                               "num_dense_layers": 1}),
    "qwen3_next": ("Qwen3Next", MIXED | DELTA | EXPERTS | {"head_dim": 64, "shared_expert_intermediate_size": 512}),
    "qwen3_5_text": ("Qwen3_5", MIXED | DELTA | {"head_dim": 64}),
    "qwen3_5_moe_text": ("Qwen3_5Moe", HEADS | DELTA | EXPERTS | {"head_dim": 64,
                                                                  "shared_expert_intermediate_size": 512}),
    "kimi_linear": ("KimiLinear", HEADS | EXPERTS | {
        "num_key_value_heads": 6, "intermediate_size": 1024, "linear_num_heads": 4, "linear_head_dim": 64,
        "kv_lora_rank": 128, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
        "layer_types": ["linear_attention", "linear_attention", "full_attention", "linear_attention"],
    }),
    "olmo_hybrid": ("OlmoHybrid", MIXED | DELTA),
    "rwkv": ("Rwkv", {}),
    "xlstm": ("xLSTM", {"num_heads": 4}),
}  # fmt: skip


def checkpoint(format: str, sizes: Sizes, with_peer: bool) -> Case:
    """Ours comes from the files of theirs, which is why there is nothing to measure where transformers is missing."""
    cls, config = FORMATS[format]
    made = peer("transformers", "AutoConfig").for_model(format, **COMMON | config)
    theirs = peer("transformers", f"{cls}ForCausalLM")(made).eval()
    peer("transformers.utils.logging", "disable_progress_bar")()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = hub.load(folder)
    ids = torch.randint(COMMON["vocab_size"], (1, sizes["T"]))

    def check() -> list[Comparison]:
        with torch.no_grad():
            return [Comparison("logits", ours(ids)[0], theirs(ids, use_cache=False).logits, 1e-3)]

    work = {PREFILL: Work(sizes["T"], "token"), DECODE: Work(TOKENS, "token")}
    return Case(our_passes(ours, ids), their_passes(theirs, ids) if with_peer else {}, check, work)


def our_passes(model: LanguageModel, ids: Tensor) -> dict[str, Callable[[], Any]]:
    stream = model.stream(ids[:, :PROMPT], temperature=0)

    @torch.inference_mode()
    def prefill() -> None:
        model(ids, logits="last")

    def decode() -> None:
        for _ in range(TOKENS):
            next(stream)

    return {PREFILL: prefill, DECODE: decode}


def their_passes(model: Any, ids: Tensor) -> dict[str, Callable[[], Any]]:
    """Prefill keeps the cache and computes the last logits only, where the model can; decoding is a bare loop."""

    @torch.inference_mode()
    def prefill() -> Any:
        return read(ids)

    def read(ids: Tensor, **cache: Any) -> Any:
        try:
            return model(ids, use_cache=True, logits_to_keep=1, **cache)
        except TypeError:  # a model that knows no `logits_to_keep`
            return model(ids, use_cache=True, **cache)

    with torch.inference_mode():
        out = read(ids[:, :PROMPT])
    name = next((n for n in CACHES if getattr(out, n, None) is not None), None)

    @torch.inference_mode()
    def decode() -> None:
        nonlocal out
        for _ in range(TOKENS):
            cache = {} if name is None else {name: getattr(out, name)}
            out = read(out.logits[:, -1:].argmax(-1), **cache)

    return {PREFILL: prefill, DECODE: decode}


def draw(random: Random) -> Sizes:
    return {"B": 1, "T": round(2 ** random.uniform(5, 11))}


ROWS = [
    Row(f"checkpoint_{name}", OP, f"transformers' {cls}ForCausalLM", {"B": 1, "T": 1024}, partial(checkpoint, name),
        {"T": 64}, {PREFILL: 1, DECODE: 1}, draw=draw)
    for name, (cls, _) in FORMATS.items()
]  # fmt: skip
