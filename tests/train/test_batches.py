"""Batches: every token is read once an epoch, targets follow inputs, and a batch depends on its step alone."""

from __future__ import annotations

import pytest
import torch

from ritornello.errors import InputError
from ritornello.models import ByteTokenizer
from ritornello.tasks.text_files import Document
from ritornello.train import Packed, Streams, Tokens

DOCUMENTS = [Document(str(i), bytes([97 + i]) * (20 + 7 * i)) for i in range(9)]
TOKENS = Tokens.of(DOCUMENTS, ByteTokenizer())


def test_each_document_is_led_by_the_boundary():
    assert TOKENS.nbytes == sum(len(d.text) for d in DOCUMENTS)
    assert [int(TOKENS.ids[s]) for s in TOKENS.starts[:-1]] == [0] * 9
    assert bytes(TOKENS.ids[1 : TOKENS.starts[1]].tolist()) == DOCUMENTS[0].text
    assert TOKENS.starts[-1] == len(TOKENS.ids)


@pytest.mark.parametrize("kind", [Streams, Packed])
def test_a_batch_depends_on_the_step_alone(kind):
    one, other = kind(TOKENS, 2, 16, 5), kind(TOKENS, 2, 16, 5)
    forward = [one.at(step) for step in range(40)]
    for step in reversed(range(40)):
        batch = other.at(step)
        assert torch.equal(batch.ids, forward[step].ids)
        assert torch.equal(batch.targets, forward[step].targets)
    assert not torch.equal(kind(TOKENS, 2, 16, 6).at(0).ids, forward[0].ids)


def test_streams_go_on_where_the_last_window_ended():
    streams = Streams(TOKENS, 3, 16, 0)
    for step in range(1, streams.windows):
        before, batch = streams.at(step - 1), streams.at(step)
        assert not batch.fresh
        assert torch.equal(before.targets[:, -1], batch.ids[:, 0])
        assert torch.equal(batch.ids[:, 1:], batch.targets[:, :-1])
    assert streams.at(0).fresh
    assert streams.at(streams.windows).fresh


def test_devices_share_the_streams():
    whole = Streams(TOKENS, 4, 8, 0).at(1).ids
    parts = [Streams(TOKENS, 2, 8, 0, rank, 2).at(1).ids for rank in range(2)]
    assert torch.equal(torch.cat(parts), whole)


def test_devices_share_the_pieces():
    pieces = [row for rank in range(2) for row in Packed(TOKENS, 2, 8, 0, rank, 2).at(1).ids.view(2, 8)]
    assert torch.equal(torch.stack(pieces), Packed(TOKENS, 4, 8, 0).at(1).ids.view(4, 8))


def test_a_sequence_begins_with_a_piece_or_a_document():
    packed = Packed(TOKENS, 4, 16, 0)
    seen = 0
    for step in range(packed.steps):
        batch = packed.at(step)
        assert batch.cu_seqlens is not None
        bounds = set(batch.cu_seqlens.tolist())
        assert set(range(0, 65, 16)) <= bounds
        marks = set(torch.nonzero(batch.ids[0] == 0).flatten().tolist())
        assert marks <= bounds
        assert bounds - marks <= set(range(0, 65, 16))
        seen += len(marks)
    assert seen >= 5, "documents begin inside the pieces of this text"


def test_pieces_in_which_no_document_begins_are_rows():
    two = Tokens.of([Document("a", bytes(range(1, 100))), Document("b", bytes(range(100, 256)))], ByteTokenizer())
    packed = Packed(two, 2, 16, 0)
    batches = [packed.at(step) for step in range(packed.steps)]
    shapes = [(tuple(b.ids.shape), b.cu_seqlens is None) for b in batches]
    assert shapes.count(((2, 16), True)) == len(shapes) - 1, "all but the one in which the second document begins"
    assert ((1, 32), False) in shapes
    for batch in batches:
        assert torch.equal(batch.ids.reshape(-1)[1:16], batch.targets.reshape(-1)[:15])


def test_an_epoch_of_pieces_reads_no_token_twice():
    long = Tokens.of([Document("a", bytes(range(1, 256)))], ByteTokenizer())
    packed = Packed(long, 2, 16, 0)
    read = torch.cat([packed.at(step).ids.flatten() for step in range(packed.steps)])
    assert len(read.unique()) == len(read)


@pytest.mark.parametrize("kind", [Streams, Packed])
def test_too_little_text_is_refused(kind):
    with pytest.raises(InputError, match="tokens to train on"):
        kind(TOKENS, 8, 512, 0)
