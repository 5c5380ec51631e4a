"""Rows of whole models, vocabulary 256: Mamba, and three gated delta layers with one of attention."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ritornello.lab.bench.case import BOTH, FORWARD, Case, Comparison, Row, Side, Sizes, Work, compare
from ritornello.lab.bench.peers import peer
from ritornello.layers import Layer
from ritornello.models import LanguageModel, ModelConfig
from ritornello.typing import Tensor

__all__ = ["ROWS", "TOKENS"]

VOCABULARY = 256
HEADS, HEAD, HIDDEN = 4, 64, 704
TOKENS = 16
"""Tokens of one timed call in the decoding row."""
PROMPT = 32


# -------------------------------------------------------------------------------------------------------------- Mamba


def mamba(sizes: Sizes, with_peer: bool) -> Case:
    B, T, d, N = (sizes[n] for n in "BTdN")
    config = ModelConfig(vocab_size=VOCABULARY, width=d, pattern=("mamba", {"state_size": N}), ffn=None, norm_eps=1e-5)
    model = LanguageModel(config)
    ids = torch.randint(VOCABULARY, (B, T))
    if not with_peer:
        ours = _scored(model, lambda: model(ids)[0], ids)
        return Case(_passes(ours, model, ids), {}, compare(ours, "reference", 1e-3))
    cls, of = (peer("transformers.models.mamba.modeling_mamba", f"Mamba{name}") for name in ("ForCausalLM", "Config"))
    theirs = cls(of(vocab_size=VOCABULARY, hidden_size=d, state_size=N, num_hidden_layers=1, use_cache=False))
    copy_mamba(theirs, model)
    ours = _scored(model, lambda: model(ids)[0], ids)
    other = _scored(theirs, lambda: theirs(ids).logits, ids)

    def check() -> list[Comparison]:
        """Logits, and a weight's gradient that has come through the scan and the convolution."""
        with torch.no_grad():
            found = [Comparison("logits", model(ids)[0], theirs(ids).logits, 1e-3)]
        (got,) = torch.autograd.grad(ours.call(), mixers(model)[0].in_proj.weight)
        (want,) = torch.autograd.grad(other.call(), theirs.backbone.layers[0].mixer.in_proj.weight)
        return [*found, Comparison("gradient of in_proj", got, want, 1e-3)]

    return Case(_passes(ours, model, ids), _passes(other, lambda i: theirs(i).logits, ids), check)


def _scored(model: nn.Module, logits: Callable[[], Tensor], ids: Tensor) -> Side:
    """The loss of the next ids, differentiated by all weights."""
    return Side(lambda: F.cross_entropy(logits()[:, :-1].flatten(0, 1), ids[:, 1:].flatten()), [*model.parameters()])


def _passes(side: Side, logits: Callable[[Tensor], Any], ids: Tensor) -> dict[str, Callable[[], Any]]:
    """Forward ends at the logits; a loss is computed for the backward pass only."""

    @torch.no_grad()
    def forward() -> None:
        logits(ids)

    return {FORWARD: forward, BOTH: side.both}


def draw_mamba(random: Random) -> Sizes:
    return {
        "B": random.choice((1, 2)),
        "T": round(2 ** random.uniform(4, 8)),  # its peer takes seconds beyond
        "d": random.choice((64, 128, 256)),
        "N": random.choice((8, 16)),
    }


@torch.no_grad()
def copy_mamba(theirs: Any, model: Any) -> None:
    """Give our model the weights of transformers' MambaForCausalLM."""
    block, ours = theirs.backbone.layers[0], mixers(model)[0]
    model.embedding.weight.copy_(theirs.backbone.embeddings.weight)
    model.backbone.final_norm.weight.copy_(theirs.backbone.norm_f.weight)
    model.backbone.blocks[0].mixer_norm.weight.copy_(block.norm.weight)
    for name in ("in_proj", "x_proj", "dt_proj", "out_proj"):
        getattr(ours, name).weight.copy_(getattr(block.mixer, name).weight)
    ours.conv.weight.copy_(block.mixer.conv1d.weight.squeeze(1))
    ours.conv.bias.copy_(block.mixer.conv1d.bias)
    ours.dt_bias.copy_(block.mixer.dt_proj.bias)
    ours.A_log.copy_(block.mixer.A_log)
    ours.D.copy_(block.mixer.D)


# -------------------------------------------------------------------------------------- gated delta rule and attention


def hybrid(width: int) -> LanguageModel:
    delta = ("gated_delta_net", {"heads": HEADS, "key_size": HEAD, "value_size": HEAD})
    attention = ("attention", {"heads": HEADS, "key_size": HEAD, "qk_norm": True})
    ffn = ("gated_mlp", {"hidden": HIDDEN})
    pattern = [delta, delta, delta, attention]
    return LanguageModel(ModelConfig(vocab_size=VOCABULARY, width=width, pattern=pattern, ffn=ffn))


def qwen(width: int) -> Any:
    """transformers' model of the same sizes. Its attention also has an output gate, 3 % more weights in all."""
    module = "transformers.models.qwen3_5.modeling_qwen3_5"
    config = peer(module, "Qwen3_5TextConfig")(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=HIDDEN, num_hidden_layers=4, rms_norm_eps=1e-5,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, head_dim=HEAD, linear_key_head_dim=HEAD,
        linear_value_head_dim=HEAD, linear_num_key_heads=HEADS, linear_num_value_heads=HEADS, tie_word_embeddings=True,
    )  # fmt: skip
    return peer(module, "Qwen3_5ForCausalLM")(config)


def decode(sizes: Sizes, with_peer: bool) -> Case:
    """Greedy, one row, TOKENS tokens a call; both keep their state or cache from call to call."""
    model = hybrid(sizes["d"]).eval()
    prompt = torch.randint(VOCABULARY, (sizes["B"], PROMPT))
    stream = model.stream(prompt, temperature=0)

    def ours() -> None:
        for _ in range(TOKENS):
            next(stream)

    theirs = qwen(sizes["d"]).eval() if with_peer else None
    passes = {} if theirs is None else {FORWARD: greedy(theirs, prompt)}
    work = {FORWARD: Work(sizes["B"] * TOKENS, "token")}
    return Case({FORWARD: ours}, passes, lambda: check_hybrid(model, theirs, prompt), work)


def greedy(model: Any, prompt: Tensor) -> Callable[[], None]:
    """The bare loop over a model of transformers: `generate` would only add to it."""
    with torch.inference_mode():
        out = model(prompt, use_cache=True)
        cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)

    @torch.inference_mode()
    def run() -> None:
        nonlocal ids
        for _ in range(TOKENS):
            ids = model(ids, past_key_values=cache, use_cache=True).logits[:, -1:].argmax(-1)

    return run


def train_step(sizes: Sizes, with_peer: bool) -> Case:
    """Loss, gradient and a fused AdamW step; both compute the cross-entropy of all next tokens."""
    B, T, d = (sizes[n] for n in "BTd")
    ids = torch.randint(VOCABULARY, (B, T))
    model: Any = hybrid(d)
    theirs: Any = qwen(d) if with_peer else None

    def loss_of_theirs() -> Tensor:
        return F.cross_entropy(theirs(ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())

    before = copy.deepcopy(model)  # the check may come after steps
    passes = {} if theirs is None else {BOTH: stepper(theirs, loss_of_theirs)}
    ours = {BOTH: stepper(model, lambda: model.loss(ids))}
    return Case(ours, passes, lambda: check_hybrid(before, theirs, ids[:1, :128]), {BOTH: Work(B * T, "token")})


def draw_decode(random: Random) -> Sizes:
    return {"B": random.choice((1, 2, 4)), "d": random.choice((64, 128, 256, 512))}


def draw_train(random: Random) -> Sizes:
    return {
        "B": random.choice((1, 2, 4)),
        "T": round(2 ** random.uniform(5, 10)),
        "d": random.choice((64, 128, 256)),
    }


def stepper(model: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    return step


@torch.no_grad()
def check_hybrid(model: LanguageModel, theirs: Any, ids: Tensor) -> list[Comparison]:
    """Our logits token by token beside those of the whole; and, as the two attentions differ, the first gated delta
    layer beside transformers' with the same weights."""
    whole, state, pieces = model(ids)[0], None, []
    for column in ids.split(1, 1):
        logits, state = model(column, state)
        pieces.append(logits)
    found = [Comparison("logits token by token", torch.cat(pieces, 1), whole, 1e-3)]
    if theirs is not None:
        layer, other = copy.deepcopy(mixers(model)[0]), theirs.model.layers[0].linear_attn
        copy_gated_delta_net(other, layer)
        x = torch.randn(*ids.shape, model.config.width)
        found.append(Comparison("a gated delta layer", layer(x)[0], other(x), 1e-3))
    return found


def copy_gated_delta_net(theirs: Any, ours: Any) -> None:
    ours.qkv_proj.weight.copy_(theirs.in_proj_qkv.weight)
    ours.gate_proj.weight.copy_(theirs.in_proj_z.weight)
    ours.ab_proj.weight.copy_(torch.cat((theirs.in_proj_a.weight, theirs.in_proj_b.weight)))
    ours.conv.weight.copy_(theirs.conv1d.weight.squeeze(1))
    ours.decay.A_log.copy_(theirs.A_log)
    ours.decay.dt_bias.copy_(theirs.dt_bias)
    ours.norm.norm.weight.copy_(theirs.norm.weight)
    ours.out_proj.weight.copy_(theirs.out_proj.weight)


def mixers(model: LanguageModel) -> list[Any]:
    return [m for m in model.modules() if isinstance(m, Layer) and m.traits.role == "mixer"]


ROWS = [
    Row("mamba", "selective_scan", "transformers' MambaForCausalLM, one layer", {"B": 1, "T": 512, "d": 256, "N": 16},
        mamba, {"T": 64}, {FORWARD: 5, BOTH: 100}, draw=draw_mamba),
    Row("decode", "delta_rule", "transformers' qwen3_5 text model, 4 layers", {"B": 1, "d": 256}, decode, {},
        {FORWARD: 4}, draw=draw_decode),
    Row("train_step", "delta_rule", "transformers' qwen3_5 text model, 4 layers", {"B": 4, "T": 1024, "d": 256},
        train_step, {"T": 128}, {BOTH: 2}, draw=draw_train),
]  # fmt: skip
