"""Text files as data: what is read, what is refused, and how it is split."""

from __future__ import annotations

import io
import sys

import pytest

from ritornello.errors import InputError
from ritornello.tasks.text_files import Document, read, split, walk


def write(folder, **files: bytes) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)


def test_a_folder_is_walked_in_order_without_binary_hidden_and_empty_files(tmp_path):
    write(tmp_path, b=b"second", sub__c=b"third", a=b"first", binary=b"\x7fELF\0\1", empty=b"", _dot_hidden=b"no")
    write(tmp_path, _dot_git__x=b"no", skipped__x=b"no")
    found = list(walk(tmp_path, ["skipped"]))
    assert [(d.name, d.text) for d in found] == [("a", b"first"), ("b", b"second"), ("sub/c", b"third")]


def test_a_long_file_is_read_whole(tmp_path):
    write(tmp_path, a=bytes(range(1, 255)) * 100)
    assert next(walk(tmp_path)).text == bytes(range(1, 255)) * 100


def test_places(tmp_path, monkeypatch):
    write(tmp_path, one=b"1 one", two=b"2 two", other=b"1 one")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
    texts = [d.text for d in read([tmp_path / "two", "-", str(tmp_path / "o*")])]
    assert texts == [b"2 two", b"from stdin", b"1 one"], "in the order given; equal texts once"


@pytest.mark.parametrize("place", ["missing", "nothing*", "empty", "folder", "binary_folder"])
def test_what_holds_no_text_is_refused(tmp_path, place):
    write(tmp_path, empty=b"", binary_folder__x=b"a\0b")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"`data` is .*"):
        read([tmp_path / place])


def test_a_missing_file_offers_the_nearest(tmp_path):
    write(tmp_path, corpus=b"text")
    with pytest.raises(InputError, match="Did you mean 'corpus'"):
        read([tmp_path / "corpsu"])


def test_the_split_is_by_contents(tmp_path):
    documents = [Document(str(i), bytes([65 + i % 26]) * (100 + i)) for i in range(100)]
    training, heldout = split(documents, 0.1)
    total = sum(len(d.text) for d in documents)
    assert len(training) + len(heldout) == 100
    assert 0.05 * total < sum(len(d.text) for d in heldout) < 0.15 * total
    renamed = [Document("x" + d.name, d.text) for d in reversed(documents)]
    assert {d.text for d in split(renamed, 0.1)[1]} == {d.text for d in heldout}


def test_one_document_is_cut_at_a_line_break():
    training, heldout = split([Document("a", b"line of text\n" * 100)], 0.1)
    assert training[0].text + heldout[0].text == b"line of text\n" * 100
    assert training[0].text.endswith(b"\n")
    assert 0 < len(heldout[0].text) < 200


@pytest.mark.parametrize("heldout", [0, 1, -0.1, 2])
def test_a_senseless_part_is_refused(heldout):
    with pytest.raises(InputError, match="heldout"):
        split([Document("a", b"x" * 100)], heldout)


def test_a_text_too_short_is_refused():
    with pytest.raises(InputError, match="16"):
        split([Document("a", b"short")], 0.1)
