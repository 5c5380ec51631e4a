"""The loss that keeps the load of routers even: that of transformers, and even loads where it is used."""

from __future__ import annotations

import pytest
import torch

import ritornello as rt
from ritornello.layers.parts.routing import Route, load_balance

EXPERTS = ("moe", {"experts": 4, "top_k": 2, "hidden": 16})


def model_of(pattern: object = "gated_delta_net", ffn: object = EXPERTS, depth: int = 2) -> rt.LanguageModel:
    torch.manual_seed(0)
    return rt.LanguageModel(rt.ModelConfig(31, 16, pattern=pattern, depth=depth, ffn=ffn, init_std=0.5))


def ids_of(rows: int = 3, length: int = 20) -> torch.Tensor:
    return torch.randint(31, (rows, length), generator=torch.Generator().manual_seed(1))


def share_of(model: rt.LanguageModel, ids: torch.Tensor, **options) -> torch.Tensor:
    """What `balance` adds to the loss."""
    return model.loss(ids, balance=1.0, **options) - model.loss(ids, **options)


def test_it_is_that_of_transformers(tmp_path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
    config = transformers.AutoConfig.for_model(
        "qwen3_next", vocab_size=31, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        linear_num_value_heads=2, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16,
        shared_expert_intermediate_size=16, router_aux_loss_coef=0.3, initializer_range=0.5, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.Qwen3NextForCausalLM(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = rt.load(tmp_path)
    expected = theirs(ids_of(), labels=ids_of(), output_router_logits=True, use_cache=False)
    assert abs(expected.aux_loss - 2) > 0.01, "an even load tells nothing"
    loss = ours.loss(ids_of(), balance=0.3)
    torch.testing.assert_close(loss, expected.loss, rtol=0, atol=2e-5)
    expected.loss.backward()
    loss.backward()
    router = ours.backbone.blocks[1].ffn.router
    assert router.weight.grad.abs().max() > 1e-3
    torch.testing.assert_close(router.weight.grad, theirs.model.layers[1].mlp.gate.weight.grad, rtol=0, atol=1e-5)


@pytest.mark.parametrize("routing", ["softmax", "sigmoid"])
def test_padding_and_packing_do_not_count(routing: str) -> None:
    model = model_of(ffn=("moe", {**EXPERTS[1], "routing": routing}))
    ids, mask = ids_of(2), torch.ones(2, 20, dtype=torch.bool)
    mask[1, :13] = False
    together = share_of(model, ids, mask=mask)
    packed = torch.cat([ids[:1], ids[1:, 13:], torch.zeros(1, 9, dtype=torch.long)], 1)
    torch.testing.assert_close(share_of(model, packed, cu_seqlens=torch.tensor([0, 20, 27])), together)
    steps = [(20, share_of(model, ids[:1])), (7, share_of(model, ids[1:, 13:]))]
    assert not torch.isclose(together, sum(n * s for n, s in steps) / 27, rtol=1e-4), "it is of all steps, not a mean"


def test_kinds_of_routers_are_added_up() -> None:
    torch.manual_seed(0)
    shares = [torch.randn(n, 4).softmax(-1) for n in (9, 5, 7)]
    routes = [Route(k, s, s.topk(2).indices, None) for k, s in zip(("moe", "moe", "mom"), shares, strict=True)]
    one = torch.cat(shares[:2])
    pooled = load_balance([Route("moe", one, one.topk(2).indices, None)])
    torch.testing.assert_close(load_balance(routes), pooled + load_balance(routes[2:]))


def test_a_mixture_of_memories_has_one_too() -> None:
    model = model_of("mom", None)
    model.loss(ids_of(), balance=1.0).backward()
    with_balance = model.backbone.blocks[0].mixer.router.weight.grad.clone()
    model.zero_grad()
    model.loss(ids_of()).backward()
    assert not torch.allclose(with_balance, model.backbone.blocks[0].mixer.router.weight.grad, atol=1e-3)


def test_it_makes_loads_even() -> None:
    uneven = torch.tensor([4.0, 1.0, 0.0, 0.0]).requires_grad_()
    noise = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.SGD([uneven], 0.3)
    values = []
    for _ in range(200):
        share = (uneven + noise).softmax(-1)
        loss = load_balance([Route("moe", share, share.topk(1).indices, None)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[0] > 3.0, "of at most 4"
    assert values[-1] == pytest.approx(1.0, abs=0.02)


def test_sums_and_models_without_routers() -> None:
    model, ids = model_of(), ids_of()
    total = model.loss(ids, balance=0.1, reduction="sum")
    torch.testing.assert_close(total / (3 * 19), model.loss(ids, balance=0.1))
    with pytest.raises(rt.InputError, match="none of the model's layers has a router"):
        model_of(ffn="mlp").loss(ids, balance=0.1)
