"""RWKV-4 as transformers keeps it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ritornello.hub.architecture import Architecture
from ritornello.hub.settings import Key, Same, Settings, uniform
from ritornello.hub.table import Row, same
from ritornello.typing import Tensor

__all__ = ["RWKV"]

KEYS = (
    Key("vocab_size", "vocab_size"),
    Key("hidden_size", "width"),
    Key("attention_hidden_size", "rwkv4.size", None),
    Key("intermediate_size", "rwkv4_channel_mix.hidden", None),
    Same("layer_norm_epsilon", 1e-5),  # the last norm has this one, whatever a config says of the others
    Key("rescale_every", "halve_every", 6, read=lambda every: max(every, 0)),
    Key("tie_word_embeddings", "tied_embeddings", False),
)


def _stacked(theirs: Sequence[str], ours: str) -> Row:
    """Vectors of theirs, (1, 1, D) each, are the rows of ours."""

    def read(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
        return (torch.cat([t.view(1, -1) for t in tensors]),)

    return Row(tuple(theirs), (ours,), read, lambda t: [row.view(1, 1, -1) for row in t[0]])


RWKV = Architecture(
    name="rwkv",
    model="RwkvForCausalLM",
    settings=Settings(
        KEYS,
        **uniform("rwkv4", "rwkv4_channel_mix"),
        ignored=("context_length",),
        fixed={"norm": "layer_norm", "norm_eps": 1e-5, "embedding_norm": True},
    ),
    rows=(
        same("rwkv.embeddings.weight", "embedding.weight"),
        same("head.weight"),
        *(
            same(f"rwkv.{theirs}.{part}", f"backbone.{ours}.{part}")
            for theirs, ours in (("blocks.0.pre_ln", "embedding_norm"), ("ln_out", "final_norm"))
            for part in ("weight", "bias")
        ),
    ),
    block=[
        same(f"rwkv.blocks.{{i}}.{theirs}.{part}", f"backbone.blocks.{{i}}.{ours}.{part}")
        for theirs, ours in (("ln1", "mixer_norm"), ("ln2", "ffn_norm"))
        for part in ("weight", "bias")
    ],
    layers={
        "rwkv4": (
            "rwkv.blocks.{i}.attention.",
            (
                same("time_decay", "decay"),
                same("time_first", "bonus"),
                _stacked(("time_mix_key", "time_mix_value", "time_mix_receptance"), "present"),
                same("key.weight", "key_proj.weight"),
                same("value.weight", "value_proj.weight"),
                same("receptance.weight", "receptance_proj.weight"),
                same("output.weight", "out_proj.weight"),
            ),
        ),
        "rwkv4_channel_mix": (
            "rwkv.blocks.{i}.feed_forward.",
            (
                _stacked(("time_mix_key", "time_mix_receptance"), "present"),
                same("key.weight", "key_proj.weight"),
                same("receptance.weight", "receptance_proj.weight"),
                same("value.weight", "out_proj.weight"),
            ),
        ),
    },
)
