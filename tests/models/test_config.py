"""Configs: what a pattern may be, what is refused, and JSON."""

from __future__ import annotations

import json

import pytest

import ritornello as rt
from ritornello.errors import InputError

PATTERNS = [
    "min_gru",
    "min_gru, attention",
    ["min_gru", ("attention", {"window": 8})],
    ("attention", {"window": 8}),
    rt.Parallel("attention", ("min_gru", {"log_space": False}), combine="sum"),
    [rt.Repeat(2, "min_gru", rt.Parallel("lstm", "attention")), "lstm"],
]


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("ffn", [None, "mlp", ("gated_mlp", {"hidden": 32}), ["mlp", None]], ids=str)
def test_a_config_comes_back_from_json(pattern, ffn) -> None:
    config = rt.ModelConfig(vocab_size=11, width=16, pattern=pattern, ffn=ffn, depth=3, logits_soft_cap=30.0)
    assert rt.ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_the_pattern_is_cycled_to_the_depth() -> None:
    config = rt.ModelConfig(vocab_size=11, width=16, pattern="min_gru,min_gru,attention", depth=7)
    assert config.entries() == ("min_gru", "min_gru", "attention") * 2 + ("min_gru",)
    assert rt.ModelConfig(vocab_size=11, width=16, pattern="min_gru,attention").depth == 2


def test_feed_forwards_are_cycled_as_the_pattern_is() -> None:
    ffn = [("mlp", {"hidden": 8}), None, "gated_mlp"]
    config = rt.ModelConfig(vocab_size=11, width=16, pattern="min_gru,lstm", ffn=ffn, depth=5)
    assert config.feed_forwards() == (("mlp", {"hidden": 8}), None, "gated_mlp", ("mlp", {"hidden": 8}), None)
    blocks = rt.LanguageModel(config).backbone.blocks
    assert [block.ffn and block.ffn.kind for block in blocks] == ["mlp", None, "gated_mlp", "mlp", None]


def test_repetitions_are_written_out() -> None:
    pattern = ["lstm", rt.Repeat(2, "min_gru", rt.Repeat(2, "attention"))]
    config = rt.ModelConfig(vocab_size=11, width=16, pattern=pattern)
    assert list(config.blocks()) == ["lstm", *["min_gru", "attention", "attention"] * 2]


REFUSED = {
    "an unknown layer": (dict(pattern="gated_delta_nett"), "Did you mean 'gated_delta_net'"),
    "an unknown layer inside": (dict(pattern=[("min_gruu", {})]), "Did you mean 'min_gru'"),
    "an unknown feed-forward": (dict(ffn="gated_mpl"), "Did you mean 'gated_mlp'"),
    "no layers": (dict(pattern=[]), "at least one layer"),
    "a number": (dict(pattern=[3]), "An entry of the pattern is 3"),
    "no depth": (dict(depth=0), "`depth` of ModelConfig is 0"),
    "a fraction": (dict(width=16.0), "`width` of ModelConfig is 16.0"),
    "another norm": (dict(norm="rmsnorm"), "Did you mean 'rms_norm'"),
    "all dropped": (dict(dropout=1.0), "`dropout` is 1.0"),
    "a node for a feed-forward": (dict(ffn=rt.Repeat(2, "mlp")), "`ffn` is a node"),
    "no feed-forwards": (dict(ffn=[]), "`ffn` is an empty list"),
    "a cap of zero": (dict(logits_soft_cap=0.0), "positive bound"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_a_sentence(case: str) -> None:
    options, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence):
        rt.ModelConfig(**{"vocab_size": 11, "width": 16} | options)


def test_nodes_refuse_what_they_cannot_hold() -> None:
    with pytest.raises(InputError, match="no mixers"):
        rt.Parallel()
    with pytest.raises(InputError, match="'mean' or 'sum'"):
        rt.Parallel("lstm", combine="max")
    with pytest.raises(InputError, match="layers only"):
        rt.Parallel(rt.Repeat(2, "lstm"))
    with pytest.raises(InputError, match="`n` of Repeat is 0"):
        rt.Repeat(0, "lstm")
    with pytest.raises(InputError, match="no blocks"):
        rt.Repeat(2)


def test_unknown_and_missing_fields_are_named() -> None:
    with pytest.raises(InputError, match=r"no field 'widht'.*Did you mean 'width'"):
        rt.ModelConfig.from_dict({"vocab_size": 3, "widht": 16})
    with pytest.raises(InputError, match="lacks 'width'"):
        rt.ModelConfig.from_dict({"vocab_size": 3})


def test_a_width_that_heads_do_not_divide_is_refused_where_the_layer_is_built() -> None:
    config = rt.ModelConfig(vocab_size=11, width=15, pattern=[("attention", {"heads": 4})])
    with pytest.raises(InputError, match="does not divide `width` = 15"):
        rt.LanguageModel(config)


def test_an_unknown_option_is_refused_with_the_nearest() -> None:
    config = rt.ModelConfig(vocab_size=11, width=16, pattern=[("attention", {"windw": 4})])
    with pytest.raises(InputError, match="Did you mean 'window'"):
        rt.LanguageModel(config)


def test_a_layer_that_reads_the_future_is_refused() -> None:
    config = rt.ModelConfig(vocab_size=11, width=16, pattern=[("min_gru", {"direction": "both"})])
    with pytest.raises(InputError, match="reads from the future"):
        rt.LanguageModel(config)
    assert rt.layers.MinGRU(16).traits.causal
    assert not rt.layers.MinGRU(16, direction="backward").traits.causal
