"""Models of flash-linear-attention, which runs on no CPU: the forward that its layers describe, step by step, float64.

A case is a config.json and the shapes of the tensors beside it, by the names of that library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

Tensor = torch.Tensor
Weights = Callable[[str], Tensor]
V, D, N = 96, 32, 3
BASE = {"vocab_size": V, "hidden_size": D, "num_hidden_layers": N, "attn_mode": "chunk", "fuse_norm": True}
GATED_MLP = {"gate_proj.weight": (48, D), "up_proj.weight": (48, D), "down_proj.weight": (D, 48)}


def case(name: str, config: dict[str, Any], attn: dict[str, tuple[int, ...]], **more: Any) -> dict[str, Any]:
    """The config of a format, and the shapes of all its tensors."""
    rwkv = name.startswith("rwkv")
    ffn = more.pop("ffn", GATED_MLP)
    parts = ("weight", "bias") if rwkv else ("weight",)
    shapes = {"model.embeddings.weight": (V, D), "lm_head.weight": (V, D)}
    shapes |= {f"model.norm.{part}": (D,) for part in parts}
    for i in range(N):
        at = f"model.layers.{i}."
        shapes |= {f"{at}attn.{n}": s for n, s in attn.items() if i or not n.startswith("v_lora")}
        shapes |= {f"{at}{'ffn' if rwkv else 'mlp'}.{n}": s for n, s in ffn.items()}
        norms = ["attn_norm", "ffn_norm" if rwkv else "mlp_norm"] + ["pre_norm"] * (rwkv and i == 0)
        shapes |= {f"{at}{norm}.{part}": (D,) for norm in norms for part in parts}
    hidden = {} if rwkv else {"intermediate_size": 48}
    return {"config": {"model_type": name, **BASE, **hidden, **config}, "shapes": shapes, **more}


def qkv(keys: int, values: int, conv: int = 0) -> dict[str, tuple[int, ...]]:
    sizes = {"q": keys, "k": keys, "v": values}
    found: dict[str, tuple[int, ...]] = {f"{n}_proj.weight": (size, D) for n, size in sizes.items()}
    return found | ({f"{n}_conv1d.weight": (size, 1, conv) for n, size in sizes.items()} if conv else {})


def lora(name: str, size: int, rank: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {f"{name}.lora.0.weight": (rank, D), f"{name}.lora.2.weight": (size, rank)}
    return found | ({f"{name}.lora.2.bias": (size,)} if bias else {})


CASES = {
    "gla": case(
        "gla",
        {"num_heads": 2, "expand_k": 0.75, "expand_v": 1.25, "norm_eps": 1e-3},
        {
            **qkv(24, 40),
            "gk_proj.0.weight": (16, D),
            "gk_proj.1.weight": (24, 16),
            "gk_proj.1.bias": (24,),
            "g_proj.weight": (40, D),
            "g_norm_swish_gate.weight": (20,),
            "o_proj.weight": (D, 40),
        },
    ),
    "retnet": case(
        "retnet",
        {"num_heads": 2},
        {
            **qkv(32, 64),
            "g_proj.weight": (64, D),
            "g_norm_swish_gate.weight": (32,),
            "o_proj.weight": (D, 64),
        },
    ),
    "hgrn2": case(
        "hgrn2",
        {"num_heads": 2, "expand_ratio": 16, "use_lower_bound": True},
        {"q_proj.weight": (32, D), "f_proj.weight": (32, D), "i_proj.weight": (32, D), "g_norm.weight": (32,)}
        | {"o_proj.weight": (D, 32)},
    ),
    "delta_net": case(
        "delta_net",
        {"num_heads": 2, "expand_k": 0.5, "conv_size": 3, "norm_eps": 1e-2},
        {**qkv(16, 32, 3), "b_proj.weight": (2, D), "o_norm.weight": (16,), "o_proj.weight": (D, 32)},
    ),
    "gated_deltanet": case(
        "gated_deltanet",
        {"num_heads": 2, "num_v_heads": 4, "head_dim": 8, "expand_v": 1.5, "norm_eps": 1e-2},
        {
            **qkv(16, 48, 4),
            "a_proj.weight": (4, D),
            "b_proj.weight": (4, D),
            "A_log": (4,),
            "dt_bias": (4,),
            "g_proj.weight": (48, D),
            "o_norm.weight": (12,),
            "o_proj.weight": (D, 48),
        },
    ),
    "kda": case(
        "kda",
        {"num_heads": 2, "num_v_heads": 4, "head_dim": 8, "expand_v": 1.0, "norm_eps": 1e-2},
        {
            **qkv(16, 32, 4),
            "f_proj.0.weight": (8, D),
            "f_proj.1.weight": (32, 8),
            "b_proj.weight": (4, D),
            "A_log": (4,),
            "dt_bias": (32,),
            "g_proj.0.weight": (8, D),
            "g_proj.1.weight": (32, 8),
            "g_proj.1.bias": (32,),
            "o_norm.weight": (8,),
            "o_proj.weight": (D, 32),
        },
    ),
    "rwkv6": case(
        "rwkv6",
        {
            "num_heads": 2,
            "expand_k": 0.5,
            "proj_low_rank_dim": 4,
            "gate_low_rank_dim": 6,
            "intermediate_size": 40,
            "hidden_act": "sqrelu",
            "norm_eps": 1e-3,
        },
        {
            "x_proj.0.linear.weight": (20, D),
            "x_proj.0.mu": (D,),
            "x_proj.2.weight": (D, 20),
            "x_bias": (5, D),
            "bonus": (2, 8),
            **{f"{n}_proj.linear.weight": (size, D) for n, size in (("r", 16), ("k", 16), ("v", 32), ("g", 32))},
            **lora("w_proj.linear", 16, 6),
            "g_norm.weight": (32,),
            "g_norm.bias": (32,),
            "o_proj.weight": (D, 32),
        },
        ffn={
            "key.mu": (D,),
            "key.linear.weight": (40, D),
            "receptance.mu": (D,),
            "receptance.linear.weight": (D, D),
            "value.weight": (D, 40),
        },
    ),
    "rwkv7": case(
        "rwkv7",
        {
            "head_dim": 16,
            "value_dim": [64] * N,
            "decay_low_rank_dim": 5,
            "a_low_rank_dim": 6,
            "v_low_rank_dim": 7,
            "gate_low_rank_dim": 9,
            "intermediate_size": 40,
            "hidden_act": "sqrelu",
        },
        {
            **{f"x_{n}": (1, 1, D) for n in "rwkvag"},
            "k_k": (D,),
            "k_a": (D,),
            "r_k": (2, 16),
            "r_proj.weight": (D, D),
            "k_proj.weight": (D, D),
            "v_proj.weight": (64, D),
            **lora("w_lora", D, 5),
            **lora("a_lora", D, 6),
            **lora("v_lora", 64, 7),
            **lora("g_lora", 64, 9, bias=False),
            "g_norm.weight": (64,),
            "g_norm.bias": (64,),
            "o_proj.weight": (D, 64),
        },
        ffn={"x_k": (D,), "key.weight": (40, D), "value.weight": (D, 40)},
    ),
}


def tensors(name: str) -> dict[str, Tensor]:
    """Random weights: near one for norms, of unit gain for projections."""
    generator = torch.Generator().manual_seed(2)
    found = {}
    for key, shape in CASES[name]["shapes"].items():
        drawn = torch.randn(shape, generator=generator)
        if "norm" in key and key.endswith("weight"):
            found[key] = 1 + 0.3 * drawn
        else:
            found[key] = drawn * (shape[-1] ** -0.5 if len(shape) == 2 and shape[-1] > 2 else 0.5)
    return found


# --------------------------------------------------------------------------------------------------------- the forward


def logits(name: str, weights: dict[str, Tensor], ids: Tensor) -> Tensor:
    """(B, T) → (B, T, V), each row for itself."""
    wide = {key: weight.double() for key, weight in weights.items()}
    return torch.stack([_row(CASES[name]["config"], wide, row) for row in ids])


def _row(c: dict[str, Any], w: dict[str, Tensor], ids: Tensor) -> Tensor:
    kind = c["model_type"]
    rwkv = kind.startswith("rwkv")
    eps = c.get("norm_eps", 1e-5 if rwkv else 1e-6)

    def norm(x: Tensor, at: str) -> Tensor:
        if rwkv:
            return F.layer_norm(x, x.shape[-1:], w[at + ".weight"], w[at + ".bias"], eps)
        return rms(x, w[at + ".weight"], eps)

    x, carry = w["model.embeddings.weight"][ids], {"lower_bounds": w.get("model.lower_bounds")}
    if rwkv:
        x = norm(x, "model.layers.0.pre_norm")
    for i in range(N):
        at = f"model.layers.{i}."
        x = x + MIXERS[kind](lambda n, at=at: w[f"{at}attn.{n}"], norm(x, at + "attn_norm"), c, eps, carry)
        if rwkv:
            x = x + FEED_FORWARDS[kind](lambda n, at=at: w[f"{at}ffn.{n}"], norm(x, at + "ffn_norm"))
        else:
            y = norm(x, at + "mlp_norm")
            gate, up = y @ w[at + "mlp.gate_proj.weight"].T, y @ w[at + "mlp.up_proj.weight"].T
            x = x + (F.silu(gate) * up) @ w[at + "mlp.down_proj.weight"].T
    return norm(x, "model.norm") @ w["lm_head.weight"].T


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def group_norm(p: Weights, o: Tensor, eps: float) -> Tensor:
    """(T, H, V) → (T, H·V), each head normalised for itself."""
    return F.layer_norm(o, o.shape[-1:], eps=eps).flatten(1) * p("g_norm.weight") + p("g_norm.bias")


def unit(x: Tensor) -> Tensor:
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def before(x: Tensor) -> Tensor:
    """x_{t−1} − x_t."""
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]]) - x


def convolved(p: Weights, name: str, x: Tensor) -> Tensor:
    """The projection `name`, its short causal convolution, and silu."""
    y, taps = x @ p(f"{name}_proj.weight").T, p(f"{name}_conv1d.weight").squeeze(1)
    padded = torch.cat([torch.zeros(taps.shape[1] - 1, y.shape[1], dtype=y.dtype), y])
    windows = padded.unfold(0, taps.shape[1], 1)  # (T, D, W)
    return F.silu((windows * taps).sum(-1))


def walk(S: Tensor, length: int, step: Callable[[int, Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """The outputs of all steps, (T, H, V)."""
    outputs = []
    for t in range(length):
        S, o = step(t, S)
        outputs.append(o)
    return torch.stack(outputs)


def read(S: Tensor, q: Tensor) -> Tensor:
    return torch.einsum("hkv,hk->hv", S, q)


def outer(k: Tensor, v: Tensor) -> Tensor:
    return k.unsqueeze(-1) * v.unsqueeze(-2)


def gla(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: Any) -> Tensor:
    heads = c["num_heads"]
    q, k, v = ((x @ p(f"{n}_proj.weight").T).unflatten(1, (heads, -1)) for n in "qkv")
    gate = x @ p("gk_proj.0.weight").T @ p("gk_proj.1.weight").T + p("gk_proj.1.bias")
    decay = torch.sigmoid(gate).pow(1 / 16).unflatten(1, (heads, -1))

    def step(t: int, S: Tensor):
        S = decay[t].unsqueeze(-1) * S + outer(k[t], v[t])
        return S, read(S, q[t]) * q.shape[-1] ** -0.5

    o = walk(torch.zeros(heads, k.shape[-1], v.shape[-1]).double(), len(x), step)
    o = rms(o, p("g_norm_swish_gate.weight"), eps).flatten(1) * F.silu(x @ p("g_proj.weight").T)
    return o @ p("o_proj.weight").T


def retnet(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: Any) -> Tensor:
    heads, steps = c["num_heads"], torch.arange(len(x)).double()
    q, k, v = ((x @ p(f"{n}_proj.weight").T).unflatten(1, (heads, -1)) for n in "qkv")
    half = q.shape[-1] // 2
    angle = (steps.unsqueeze(1) * 10_000.0 ** (-torch.arange(half).double() / half)).unsqueeze(1)

    def turn(z: Tensor) -> Tensor:
        one, two = z.chunk(2, -1)
        return torch.cat([one * angle.cos() - two * angle.sin(), one * angle.sin() + two * angle.cos()], -1)

    decay = 1 - 2.0 ** (-5 - torch.arange(heads).double())
    apart = steps.unsqueeze(1) - steps
    weight = torch.where(apart >= 0, decay.view(-1, 1, 1) ** apart.clamp(min=0), 0.0)
    scores = torch.einsum("thk,shk->hts", turn(q), turn(k)) * q.shape[-1] ** -0.5
    o = torch.einsum("hts,shv->thv", scores * weight, v)
    o = rms(o, p("g_norm_swish_gate.weight"), eps).flatten(1) * F.silu(x @ p("g_proj.weight").T)
    return o @ p("o_proj.weight").T


def hgrn2(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: dict[str, Any]) -> Tensor:
    heads, layer = c["num_heads"], carry.setdefault("layer", 0)
    carry["layer"] += 1
    q, f, v = F.silu(x @ p("q_proj.weight").T), torch.sigmoid(x @ p("f_proj.weight").T), x @ p("i_proj.weight").T
    if c["use_lower_bound"] and layer:
        bounds = carry["lower_bounds"].softmax(0).cumsum(0)
        low = bounds[layer] - bounds[0]
        f = low + (1 - low) * f
    q, f, v = (t.unflatten(1, (heads, -1)) for t in (q, f, v))

    def step(t: int, S: Tensor):
        S = f[t].unsqueeze(-1) * S + outer(1 - f[t], v[t])
        return S, read(S, q[t]) * q.shape[-1] ** -0.5

    o = walk(torch.zeros(heads, q.shape[-1], v.shape[-1]).double(), len(x), step).flatten(1)
    return rms(o, p("g_norm.weight"), 1e-5) @ p("o_proj.weight").T


def delta(p: Weights, x: Tensor, c: dict[str, Any], decay: Tensor | None) -> Tensor:
    """The delta rule of all the layers that have one: (T, Hv, V)."""
    heads, value_heads = c["num_heads"], c.get("num_v_heads") or c["num_heads"]
    q, k = (unit(convolved(p, n, x).unflatten(1, (heads, -1))).repeat_interleave(value_heads // heads, 1) for n in "qk")
    v = convolved(p, "v", x).unflatten(1, (value_heads, -1))
    beta = torch.sigmoid(x @ p("b_proj.weight").T) * (2 if c.get("allow_neg_eigval") else 1)

    def step(t: int, S: Tensor):
        S = S if decay is None else decay[t].view(value_heads, -1, 1) * S
        S = S + outer(k[t], beta[t].unsqueeze(-1) * (v[t] - read(S, k[t])))
        return S, read(S, q[t]) * q.shape[-1] ** -0.5

    return walk(torch.zeros(value_heads, k.shape[-1], v.shape[-1]).double(), len(x), step)


def delta_net(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: Any) -> Tensor:
    return rms(delta(p, x, c, None), p("o_norm.weight"), eps).flatten(1) @ p("o_proj.weight").T


def gated_deltanet(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: Any) -> Tensor:
    decay = torch.exp(-p("A_log").exp() * F.softplus(x @ p("a_proj.weight").T + p("dt_bias")))
    o = rms(delta(p, x, c, decay), p("o_norm.weight"), eps).flatten(1)
    return (o * F.silu(x @ p("g_proj.weight").T)) @ p("o_proj.weight").T


def kda(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: Any) -> Tensor:
    logits = (x @ p("f_proj.0.weight").T @ p("f_proj.1.weight").T + p("dt_bias")).unflatten(1, (c["num_v_heads"], -1))
    rate = p("A_log").exp().view(-1, 1)
    if c.get("safe_gate"):
        decay = torch.exp(c["lower_bound"] * torch.sigmoid(rate * logits))
    else:
        decay = torch.exp(-rate * F.softplus(logits))
    o = rms(delta(p, x, c, decay), p("o_norm.weight"), eps).flatten(1)
    gate = x @ p("g_proj.0.weight").T @ p("g_proj.1.weight").T + p("g_proj.1.bias")
    return (o * torch.sigmoid(gate)) @ p("o_proj.weight").T


def low_rank(p: Weights, name: str, x: Tensor, activation: Callable[[Tensor], Tensor], bias: bool = True) -> Tensor:
    y = activation(x @ p(f"{name}.lora.0.weight").T) @ p(f"{name}.lora.2.weight").T
    return y + p(f"{name}.lora.2.bias") if bias else y


def rwkv6(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: Any) -> Tensor:
    heads, change = c["num_heads"], before(x)
    shares = torch.tanh((x + change * p("x_proj.0.mu")) @ p("x_proj.0.linear.weight").T).unflatten(1, (5, -1))
    shares = torch.einsum("tnr,hnr->tnh", shares, p("x_proj.2.weight").unflatten(1, (5, -1))) + p("x_bias")
    x_r, x_w, x_k, x_v, x_g = (x + change * share for share in shares.unbind(1))
    mixed = {"r": x_r, "k": x_k, "v": x_v, "g": x_g}
    r, k, v, g = (y @ p(f"{n}_proj.linear.weight").T for n, y in mixed.items())
    decay = torch.exp(-torch.exp(low_rank(p, "w_proj.linear", x_w, torch.tanh)))
    r, k, v, decay = (t.unflatten(1, (heads, -1)) for t in (r, k, v, decay))

    def step(t: int, S: Tensor):
        added = outer(k[t], v[t])
        o = read(S + p("bonus").unsqueeze(-1) * added, r[t])
        return decay[t].unsqueeze(-1) * S + added, o

    o = walk(torch.zeros(heads, k.shape[-1], v.shape[-1]).double(), len(x), step)
    return (group_norm(p, o, eps) * F.silu(g)) @ p("o_proj.weight").T


def rwkv7(p: Weights, x: Tensor, c: dict[str, Any], eps: float, carry: dict[str, Tensor]) -> Tensor:
    heads, change = D // c["head_dim"], before(x)
    x_r, x_w, x_k, x_v, x_a, x_g = (x + change * p(f"x_{n}").flatten() for n in "rwkvag")
    r, k, v = x_r @ p("r_proj.weight").T, x_k @ p("k_proj.weight").T, x_v @ p("v_proj.weight").T
    decay = torch.exp(-torch.sigmoid(low_rank(p, "w_lora", x_w, torch.tanh)) * 0.6065306597126334)
    if "first" in carry:
        v = v + (carry["first"] - v) * torch.sigmoid(low_rank(p, "v_lora", x_v, lambda z: z))
    else:
        carry["first"] = v
    a = torch.sigmoid(low_rank(p, "a_lora", x_a, lambda z: z))
    g = low_rank(p, "g_lora", x_g, torch.sigmoid, bias=False)
    kk = unit((k * p("k_k")).unflatten(1, (heads, -1)))
    k = k * (1 + (a - 1) * p("k_a"))
    r, k, v, a, decay = (t.unflatten(1, (heads, -1)) for t in (r, k, v, a, decay))

    def step(t: int, S: Tensor):
        S = decay[t].unsqueeze(-1) * S + outer(kk[t] * a[t], read(S, -kk[t])) + outer(k[t], v[t])
        return S, read(S, r[t])

    o = walk(torch.zeros(heads, k.shape[-1], v.shape[-1]).double(), len(x), step)
    o = group_norm(p, o, eps * c["head_dim"]) + ((r * k * p("r_k")).sum(-1, keepdim=True) * v).flatten(1)
    return (o * g) @ p("o_proj.weight").T


def channel_mix6(p: Weights, x: Tensor) -> Tensor:
    key = F.relu((x + before(x) * p("key.mu")) @ p("key.linear.weight").T).square()
    receptance = (x + before(x) * p("receptance.mu")) @ p("receptance.linear.weight").T
    return torch.sigmoid(receptance) * (key @ p("value.weight").T)


def channel_mix7(p: Weights, x: Tensor) -> Tensor:
    return F.relu((x + before(x) * p("x_k")) @ p("key.weight").T).square() @ p("value.weight").T


MIXERS = {
    "gla": gla,
    "retnet": retnet,
    "hgrn2": hgrn2,
    "delta_net": delta_net,
    "gated_deltanet": gated_deltanet,
    "kda": kda,
    "rwkv6": rwkv6,
    "rwkv7": rwkv7,
}
FEED_FORWARDS = {"rwkv6": channel_mix6, "rwkv7": channel_mix7}
CASES["hgrn2, unbounded"] = {
    "config": {**CASES["hgrn2"]["config"], "use_lower_bound": False},
    "shapes": dict(CASES["hgrn2"]["shapes"]),
}
CASES["hgrn2"]["shapes"]["model.lower_bounds"] = (N, D)
MIRRORED = "delta_net, negative eigenvalues"
"""Its state neither decays nor, with strengths up to 2, is overwritten: it keeps what every sum was rounded by, and two
orders of summation in float32 are some 3e-5 apart. Compared in float64."""
CASES[MIRRORED] = {
    "config": {**CASES["delta_net"]["config"], "allow_neg_eigval": True},
    "shapes": CASES["delta_net"]["shapes"],
}
CASES["kda, safe gate"] = {
    "config": {**CASES["kda"]["config"], "safe_gate": True, "lower_bound": -5.0, "allow_neg_eigval": True},
    "shapes": CASES["kda"]["shapes"],
}
