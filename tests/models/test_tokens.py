"""Tokens: bytes, and a tokenizer.json."""

from __future__ import annotations

import sys

import pytest

from ritornello.errors import CheckpointError, InputError
from ritornello.models import ByteTokenizer, FileTokenizer

TEXT = "Ein Satz, naïve → \N{SNAKE} and\n  spaces  twice."


@pytest.fixture
def file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=270, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([TEXT], trainer)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def streamed(tokens, ids) -> list[str]:
    decoder = tokens.decoder()
    return [*(decoder.add(i) for i in ids), decoder.flush()]


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_text_comes_back_whole_and_in_pieces(kind: str, file) -> None:
    tokens = ByteTokenizer() if kind == "bytes" else FileTokenizer(file)
    ids = tokens.encode(TEXT * 9)
    assert max(ids) < tokens.vocab_size
    assert tokens.decode(ids) == TEXT * 9
    pieces = streamed(tokens, ids)
    assert "".join(pieces) == TEXT * 9
    assert pieces.index("\N{SNAKE}") > 10, "a character of four bytes comes when it is whole"


def test_bytes_that_are_no_text() -> None:
    tokens = ByteTokenizer()
    assert tokens.encode(b"\xff\x00a") == [255, 0, 97]
    assert tokens.encode(b"\xffa".decode("utf-8", "surrogateescape")) == [255, 97], "as the command line gives them"
    assert "".join(streamed(tokens, [255, 97, 0xC3])) == tokens.decode([255, 97, 0xC3]) == "\ufffda\ufffd"


def test_bytes_that_are_no_text_from_a_file(file) -> None:
    tokens = FileTokenizer(file)
    lone = tokens.encode("→")[:1]
    assert "".join(streamed(tokens, lone * 40)) == tokens.decode(lone * 40)


def test_a_missing_or_broken_file_is_refused(tmp_path, file, monkeypatch) -> None:
    with pytest.raises(CheckpointError, match="There is no tokenizer file"):
        FileTokenizer(tmp_path / "nothing.json")
    file.write_text(file.read_text()[:100])
    with pytest.raises(CheckpointError, match=r"is no tokenizer\.json"):
        FileTokenizer(file)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'ritornello\[tokens\]'"):
        FileTokenizer(file)
