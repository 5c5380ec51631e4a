"""Bits per byte against the definition, one document and one token at a time."""

from __future__ import annotations

import math

import pytest
import torch

from ritornello.models import ByteTokenizer, LanguageModel, ModelConfig
from ritornello.tasks.text_files import Document
from ritornello.train import Tokens, bits_per_byte
from ritornello.train import evaluate as evaluation


@pytest.mark.parametrize("layer", ["min_gru", "attention"])
def test_it_is_the_mean_of_the_negative_log_probabilities(layer, monkeypatch):
    monkeypatch.setattr(evaluation, "ROWS", 3)
    monkeypatch.setattr(evaluation, "WINDOW", 8)
    torch.manual_seed(0)
    documents = [
        Document(str(n), torch.randint(1, 256, (n,)).to(torch.uint8).numpy().tobytes()) for n in (5, 30, 1, 8, 17)
    ]
    model = LanguageModel(ModelConfig(vocab_size=256, width=16, pattern=layer, depth=1, init_std=0.5)).train()
    bits = 0.0
    with torch.no_grad():
        for document in documents:
            ids = torch.tensor([[0, *document.text]])
            logits, _ = model(ids[:, :-1])
            bits -= sum(logits[0].double().log_softmax(-1)[i, byte].item() for i, byte in enumerate(document.text))
    expected = bits / math.log(2) / sum(len(d.text) for d in documents)
    assert bits_per_byte(model, Tokens.of(documents, ByteTokenizer())) == pytest.approx(expected, rel=1e-4)
    assert model.training
