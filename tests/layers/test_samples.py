"""Layers against flash-linear-attention's: same weights, same numbers.

Each file of `samples/` holds the weights, an input and the output of one of its layers: the layer's own file, run on a
CPU in float32 with the recurrence replaced by the library's naive loop, with its names for the weights. Versions of
August 2026. That of `mom` sorts the steps of a memory with ``argsort``; here it was made stable, without which their
order is lost on a CPU.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ritornello.layers import Call, build
from ritornello.sequence import Sequence
from ritornello.testing.subject import close

SAMPLES = Path(__file__).parent / "samples"
QKV = {
    "qkv_proj.weight": "q_proj.weight k_proj.weight v_proj.weight",
    "conv.weight": "q_conv1d.weight k_conv1d.weight v_conv1d.weight",
}
DECAY = {"decay.A_log": "A_log", "decay.dt_bias": "dt_bias"}
GATED = {"norm.norm.weight": "o_norm.weight", "out_proj.weight": "o_proj.weight", "beta_proj.weight": "b_proj.weight"}
KDA = QKV | DECAY | GATED | {
    "decay_proj.down.weight": "f_proj.0.weight",
    "decay_proj.up.weight": "f_proj.1.weight",
    "gate_proj.down.weight": "g_proj.0.weight",
    "gate_proj.up.weight": "g_proj.1.weight",
    "gate_proj.up.bias": "g_proj.1.bias",
}  # fmt: skip
RWKV_END = {"norm.weight": "g_norm.weight", "norm.bias": "g_norm.bias", "out_proj.weight": "o_proj.weight"}


def low_rank(ours: str, theirs: str, bias: bool = True) -> dict[str, str]:
    names = {f"{ours}.down.weight": f"{theirs}.lora.0.weight", f"{ours}.up.weight": f"{theirs}.lora.2.weight"}
    return names | ({f"{ours}.up.bias": f"{theirs}.lora.2.bias"} if bias else {})


CASES = {  # file: layer, options, our names → theirs, joined along the first dimension
    "kda": (
        "kda",
        {"heads": 2, "value_heads": 4, "key_size": 6, "value_size": 9, "negative_eigenvalues": True},
        KDA,
    ),
    "kda_bounded": ("kda", {"heads": 2, "key_size": 4, "value_size": 4, "decay_bound": -5.0}, KDA),
    "delta_product": (
        "delta_product",
        {"heads": 2, "key_size": 4, "value_size": 8},
        QKV | DECAY | GATED | {"decay_proj.weight": "a_proj.weight", "gate_proj.weight": "g_proj.weight"},
    ),
    "rwkv6": (
        "rwkv6",
        {"heads": 2, "key_size": 4, "mix_rank": 3, "decay_rank": 4, "norm_eps": 1e-5},
        RWKV_END | low_rank("decay_proj", "w_proj.linear") | {
            "bonus": "bonus",
            "shift.all": "x_proj.0.mu",
            "shift.each": "x_bias",
            "shift.down.weight": "x_proj.0.linear.weight",
            "shift.up.weight": "x_proj.2.weight",
            "gate_proj.weight": "g_proj.linear.weight",
            **{f"{n}_proj.weight": f"{n}_proj.linear.weight" for n in "rkv"},
        },
    ),
    "rwkv7": (
        "rwkv7",
        {"heads": 2, "place": (1, 2), "decay_rank": 3, "gate_rank": 4, "rate_rank": 5, "value_rank": 6},
        RWKV_END | low_rank("decay_proj", "w_lora") | low_rank("value_proj", "v_lora") | low_rank("rate_proj", "a_lora")
        | low_rank("gate_proj", "g_lora", bias=False) | {
            "shift_mix": "x_r x_w x_k x_v x_a x_g",
            **{n: n for n in ("k_k", "k_a", "r_k")},
            **{f"{n}_proj.weight": f"{n}_proj.weight" for n in "rkv"},
        },
    ),
    "based": (
        "based",
        {"heads": 2, "key_size": 4},
        {"qkv_proj.weight": QKV["qkv_proj.weight"], "out_proj.weight": "o_proj.weight"},
    ),
    "lightnet": (
        "lightnet",
        {"heads": 2, "key_size": 6, "gate_rank": 5},
        {
            "qkv_proj.weight": QKV["qkv_proj.weight"],
            "gate_proj.down.weight": "g_proj.0.weight",
            "gate_proj.up.weight": "g_proj.1.weight",
            "norm.weight": "g_norm.weight",
            "out_proj.weight": "o_proj.weight",
        },
    ),
    "forgetting_attention": (
        "forgetting_attention",
        {"heads": 2, "qk_norm": True, "gate": True},
        {
            "q_proj.weight": "q_proj.weight",
            "kv_proj.weight": "k_proj.weight v_proj.weight",
            "forget_proj.weight": "f_proj.weight",
            "forget_proj.bias": "f_proj.bias",
            "q_norm.weight": "q_norm.weight",
            "k_norm.weight": "k_norm.weight",
            "gate_proj.weight": "g_proj.weight",
            "out_proj.weight": "o_proj.weight",
        },
    ),
    "hgrn": (
        "hgrn",
        {"expand": 2, "lower_bound": 0.25},
        {
            "in_proj.weight": "i_proj.weight f_proj.weight g_proj.weight",
            "norm.weight": "g_norm.weight",
            "out_proj.weight": "o_proj.weight",
        },
    ),
    "mom": (
        "mom",
        {"heads": 2, "key_size": 4, "memories": 3},
        DECAY | {
            "router.weight": "gate.weight",
            "q_proj.weight": "q_proj.weight",
            "memory_proj.weight": " ".join(f"{n}_proj.{m}.weight" for m in range(3) for n in "kvba")
            + "".join(f" shared_{n}.weight" for n in "kvba"),
            "conv.weight": QKV["conv.weight"],
            "gate_proj.weight": "g_proj.weight",
            "norm.norm.weight": "o_norm.weight",
            "out_proj.weight": "o_proj.weight",
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_same_weights_same_numbers(name: str) -> None:
    kind, options, names = CASES[name]
    sample = load_file(SAMPLES / f"{name}.safetensors")
    theirs = {n.removeprefix("weights."): t for n, t in sample.items() if n.startswith("weights.")}
    assert set(" ".join(names.values()).split()) == set(theirs), "a weight is not used"
    x = sample["x"]
    layer = build(kind, x.shape[-1], **options)
    joined = {ours: torch.cat([theirs[n] for n in parts.split()]) for ours, parts in names.items()}
    layer.load_state_dict({n: joined[n].reshape(p.shape) for n, p in layer.named_parameters()})
    carry = {kind: sample["v_first"]} if "v_first" in sample else {}
    with torch.no_grad():
        y, _ = layer.advance(x, None, Call(Sequence.of(x), carry=carry))
    close(y, sample["y"], torch.float32, f"{kind} against flash-linear-attention")


def test_every_sample_is_read() -> None:
    assert set(CASES) == {path.stem for path in SAMPLES.iterdir()}
