"""Packing, padding, chunks and direction are inverses of themselves or of each other, for any lengths."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ritornello.errors import InputError
from ritornello.sequence import Masked, Sequence

lengths = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def packed(sizes: list[int], tail: int = 2) -> tuple[torch.Tensor, Sequence]:
    ends = torch.tensor([0, *sizes]).cumsum(0)
    x = torch.arange(1.0, int(ends[-1]) + tail + 1).view(1, -1, 1).repeat(1, 1, 2)
    return x, Sequence.of(x, ends)


@given(lengths)
def test_pad_and_unpad(sizes):
    x, sequence = packed(sizes)
    rows = sequence.pad(x)
    assert rows.shape == (len(sizes), max(sizes), 2)
    start = 0
    for row, size in enumerate(sizes):
        assert torch.equal(rows[row, :size], x[0, start : start + size])
        assert sequence.valid()[row].sum() == size
        start += size
    back = sequence.unpad(rows)
    assert torch.equal(back[:, :start], x[:, :start]) and not back[:, start:].any()
    assert torch.equal(back, sequence.clear_unused(x))


@given(lengths)
def test_positions_and_shift(sizes):
    x, sequence = packed(sizes)
    before = -torch.arange(1.0, len(sizes) + 1).unsqueeze(1).repeat(1, 2)
    shifted, last = sequence.shift(x, before)
    start = 0
    for row, size in enumerate(sizes):
        assert sequence.positions()[0, start : start + size].tolist() == list(range(size))
        whole = torch.cat([before[row : row + 1], x[0, start : start + size]])
        assert torch.equal(shifted[0, start : start + size], whole[:-1])
        assert torch.equal(last[row], whole[-1])
        start += size


def test_what_is_packed_stays_on_its_device():
    """Without being told: no step of a sequence is looked up on another device than its bounds are on."""
    x = torch.zeros(1, 4, 2, device="meta")
    sequence = Sequence.of(x, torch.tensor([0, 3, 4], device="meta"))
    assert sequence.positions().is_meta and sequence.owners().is_meta
    assert sequence.shift(x, x[0, :2])[0].is_meta


@given(lengths)
def test_reverse_is_its_own_inverse(sizes):
    x, sequence = packed(sizes)
    turned = sequence.reverse(x)
    assert torch.equal(sequence.reverse(turned), x)
    start = 0
    for size in sizes:
        assert torch.equal(turned[0, start : start + size], x[0, start : start + size].flip(0))
        start += size


@given(lengths, st.integers(1, 4), st.data())
def test_chunks_go_on_where_an_earlier_call_ended(sizes, size, data):
    x, sequence = packed(sizes)
    phase = torch.tensor([data.draw(st.integers(0, size - 1)) for _ in sizes])
    chunks, real = sequence.chunk(x, phase, size)
    start = 0
    for row, length in enumerate(sizes):
        assert torch.equal(chunks[row][real[row]], x[0, start : start + length])
        assert real[row].flatten().nonzero().flatten().tolist() == [int(phase[row]) + t for t in range(length)]
        start += length
    assert torch.equal(sequence.unchunk(chunks, phase), sequence.clear_unused(x))


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_masks(rows):
    mask = torch.tensor(rows)
    x = torch.rand(*mask.shape, 3)
    masked = Masked.of(x, mask)
    flat = masked.pack(x.masked_fill(~mask.unsqueeze(-1), float("nan")))
    count = int(mask.sum())
    assert torch.equal(flat[0, :count], x[mask]) and not flat[0, count:].any()
    assert masked.sequence.lengths().tolist() == mask.sum(1).tolist()
    assert torch.equal(masked.unpack(flat), x * mask.unsqueeze(-1))


@pytest.mark.parametrize(
    ("batch", "ends", "says"),
    [
        (1, torch.tensor([[0, 2]]), r"wanted \(N \+ 1,\)"),
        (1, torch.tensor([0.0, 2.0]), "integers"),
        (1, torch.tensor([False, True]), "integers"),
        (2, torch.tensor([0, 2]), "batch of 2"),
        (1, torch.tensor([1, 2]), "0 first"),
        (1, torch.tensor([0, 3, 2]), "never"),
        (1, torch.tensor([0, 9]), "at most the 4"),
        (1, [0, 2], "is a list"),
    ],
)
def test_bad_bounds(batch, ends, says):
    with pytest.raises(InputError, match=says):
        Sequence.of(torch.zeros(batch, 4, 1), ends)


def test_bad_masks():
    x = torch.zeros(2, 4, 1)
    for mask in (torch.ones(2, 3, dtype=torch.bool), torch.ones(2, 4), [[True] * 4] * 2):
        with pytest.raises(InputError, match="True where a step counts"):
            Masked.of(x, mask)
