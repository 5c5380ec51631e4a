"""The rules of single tasks against what does not compute them: Python's arithmetic, permutations, known invariants."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch

from ritornello import tasks
from ritornello.errors import InputError
from ritornello.tasks._draw import choose
from ritornello.tasks.chaos import KuramotoSivashinsky, Lorenz96, MackeyGlass, _attractor, lorenz96, mackey_glass, rk4
from ritornello.tasks.group_words import table
from ritornello.tasks.scan import carry_out, commands


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(name: str, rows: int = 16, length: int | None = None, split: str = "train", **fields):
    task = tasks.find(name).preset("small", **fields)
    return task, task.sample(rows, length, generator=seeded(), split=split)


# ------------------------------------------------------------------------------------------------------ state tracking


def test_parity_by_hand():
    task = tasks.find("parity").preset("small")
    assert task.solve(torch.tensor([[1, 0, 1, 1, 0]])).tolist() == [[1, 1, 0, 1, 1]]
    assert tasks.find("even_pairs").preset("small").solve(torch.tensor([[1, 0, 1, 1]])).tolist() == [[1, 0, 1, 1]]
    assert tasks.find("cycle_navigation").preset("small").solve(torch.tensor([[2, 0, 1, 1]])).tolist() == [[4, 4, 0, 1]]


def test_even_pairs_counts_pairs():
    _, batch = drawn("even_pairs")
    for row, mask, targets in zip(*(x.tolist() for x in (batch.inputs, batch.mask, batch.targets)), strict=True):
        for t, counts in enumerate(mask):
            changes = sum(a != b for a, b in itertools.pairwise(row[: t + 1]))
            assert not counts or targets[t] == (changes % 2 == 0)


@pytest.mark.parametrize(("group", "order"), [("S3", 6), ("S4", 24), ("A5", 60), ("S5", 120), ("Z60", 60)])
def test_groups_are_groups(group, order):
    product = table(group)
    assert product.shape == (order, order)
    every = torch.arange(order)
    assert torch.equal(product[0], every) and torch.equal(product[:, 0], every), "0 is the neutral element"
    assert all(torch.equal(product[g].sort().values, every) for g in range(order)), "every element has an inverse"
    a, b, c = torch.randint(order, (3, 500), generator=seeded())
    assert torch.equal(product[product[a, b], c], product[a, product[b, c]])
    assert (product == product.T).all() == (group == "Z60"), "only Z60 is commutative"


def test_words_are_products_of_permutations():
    _, batch = drawn("s4", length=50)
    elements = list(itertools.permutations(range(4)))
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        here = tuple(range(4))
        for x, y in zip(row, targets, strict=True):
            here = tuple(here[i] for i in elements[x])
            assert elements[y] == here


@pytest.mark.parametrize("name", ["modular_arithmetic", "modular_arithmetic_brackets"])
def test_arithmetic_is_that_of_python(name):
    _, batch = drawn(name, rows=200)
    for row, mask, targets in zip(batch.inputs, batch.mask, batch.targets, strict=True):
        for t in mask.nonzero()[:, 0].tolist():
            words = "".join("01234+-*()="[x] for x in row[: t + 1].tolist())
            assert eval(words.rstrip("=")) % 5 == targets[t]


def test_listops_by_python():
    task, batch = drawn("listops", rows=200)
    median = lambda *x: (sorted(x)[(len(x) - 1) // 2] + sorted(x)[len(x) // 2]) // 2  # noqa: E731
    names = {"A": max, "I": min, "M": median, "S": lambda *x: sum(x) % 10}
    nested = 0
    for row, answer in zip(batch.inputs, batch.targets[batch.mask], strict=True):
        words = "".join("0123456789AIMS)="[x] for x in row.tolist()).rstrip("=")
        nested += bool(re.search(r"[AIMS]\d*[AIMS]", words))
        called = re.sub(r"([AIMS])", r"\1(", re.sub(r"([\d)])(?=[\dAIMS])", r"\1,", words))
        assert eval(called, names) == answer
    assert nested > 100 and batch.mask.int().argmax(1).double().mean() > 0.6 * task.train_length / 2


def test_dyck_by_deletion():
    task, batch = drawn("dyck", kinds=3)
    deepest = 0
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        for t, answer in enumerate(targets[: task.shortest_train]):
            words = "".join("([{)]}"[x] for x in row[: t + 1])
            while len(shorter := re.sub(r"\(\)|\[\]|\{\}", "", words)) < len(words):
                words = shorter
            assert not set(words) & set(")]}"), "a prefix of something well nested"
            assert answer == ("([{".index(words[-1]) + 1 if words else 0)
    level = torch.where(batch.inputs < 3, 1, -1).cumsum(1)
    deepest = level[batch.mask].max()
    assert deepest == task.depth and level.min() == 0


def test_counters_count():
    _, batch = drawn("counters")
    for row, mask, targets in zip(*(x.tolist() for x in (batch.inputs, batch.mask, batch.targets)), strict=True):
        for t in range(sum(mask)):
            first, second = (row[: t + 1].count(kind) - row[: t + 1].count(kind + 2) for kind in (0, 1))
            assert min(first, second) >= 0 and targets[t] == (first > 0) + 2 * (second > 0)


# -------------------------------------------------------------------------------------------------------------- recall


def test_choose_is_in_proportion():
    picked = choose(torch.tensor([1.0, 2.0, 0.0, 5.0]).expand(40_000, -1), 2, seeded())
    share = picked[:, 0].bincount(minlength=4) / 40_000
    torch.testing.assert_close(share, torch.tensor([0.125, 0.25, 0.0, 0.625]), atol=0.01, rtol=0)
    assert (picked[:, 0] != picked[:, 1]).all() and (picked != 2).all()
    after = picked[picked[:, 0] == 3][:, 1].bincount(minlength=4)[:2]
    assert after[1] / after.sum() == pytest.approx(2 / 3, abs=0.01), "the second among those left"


def test_mqar_asks_for_every_key_once_after_all_pairs():
    task = tasks.find("mqar").preset()
    batch = task.sample(8, 256, generator=seeded())
    pairs = 64
    keys, values = batch.inputs[:, : 2 * pairs : 2], batch.inputs[:, 1 : 2 * pairs : 2]
    assert keys.min() >= 1 and keys.max() < 4096 <= values.min()
    assert not batch.mask[:, : 2 * pairs].any() and (batch.mask.sum(1) == pairs).all()
    assert not batch.mask[:, 1::2].any(), "queries stand at even steps"
    for row in range(8):
        assert len(set(keys[row].tolist())) == len(set(values[row].tolist())) == pairs
        told = dict(zip(keys[row].tolist(), values[row].tolist(), strict=True))
        asked = batch.inputs[row][batch.mask[row]].tolist()
        assert (
            sorted(asked) == sorted(told) and [told[k] for k in asked] == batch.targets[row][batch.mask[row]].tolist()
        )


def test_mqar_gaps_follow_the_power_law():
    task = tasks.find("mqar").preset(vocabulary=16, mixture=((4, 64, 1),), train_length=256)
    batch = task.sample(40_000, generator=seeded())  # one pair, 64 steps
    gap = (batch.mask.int().argmax(1) - 2) // 2
    weights = torch.arange(1, 32) ** -0.99
    torch.testing.assert_close(gap.bincount(minlength=31) / 40_000, weights / weights.sum(), atol=0.01, rtol=0)


def test_fuzzy_recall_asks_only_for_what_came_before():
    _, batch = drawn("mad_fuzzy_recall", rows=64, motif=3)
    pairs = re.compile(r"([a-g]+)([h-o]+)")
    for row, mask, targets in zip(batch.inputs, batch.mask, batch.targets, strict=True):
        words = "".join("abcdefghijklmno_"[x] for x in row.tolist())
        known, expected = {}, {}
        for match in pairs.finditer(words):
            key, value = match.groups()
            assert len(set(key)) == len(key) <= 3 and len(set(value)) == len(value) <= 3
            if key in known:
                assert known[key] == value
                expected |= {match.start(2) + i - 1: x for i, x in enumerate(value)}
            known[key] = value
        assert {t: "abcdefghijklmno"[targets[t]] for t in mask.nonzero()[:, 0].tolist()} == expected
        assert len(words) - 2 in expected, "the last pair repeats a key"


def test_fuzzy_recall_tests_with_the_longest_keys():
    _, batch = drawn("mad_fuzzy_recall", split="test", motif=3)
    for row in batch.inputs:
        words = "".join("kkkkkkkvvvvvvvv_"[x] for x in row.tolist())
        assert {len(key) for key in re.findall("k+", words)} == {3}


def test_k_hop_by_hand():
    task = tasks.find("k_hop").preset(hops=2, alphabet=4)
    #        a  b  c  a  d  b  a
    inputs = torch.tensor([[0, 1, 2, 0, 3, 1, 0]])
    # from the last a to the d after the a before; no d came before that one. From b (5) to c (2): no c before
    places = task._places(inputs)
    assert places.tolist() == [[-1, -1, -1, -1, -1, -1, -1]]
    one = tasks.find("k_hop").preset(hops=1)
    assert one._places(inputs).tolist() == [[-1, -1, -1, 1, -1, 2, 4]]
    assert task._places(torch.tensor([[0, 1, 0, 1, 0]])).tolist() == [[-1, -1, -1, 1, 2]]


def test_curricula_grow():
    task = tasks.find("n_parity").preset("small")
    windows = [task.stage(p / 10).window for p in range(11)]
    assert windows[0] == 2 and windows == sorted(windows) and windows[-1] == task.window == 5
    for name, longest in (("mqar", 64), ("s3", 16)):
        task = tasks.find(name).preset("small", doublings=2)
        assert [task.stage(p).train_length for p in (0, 0.24, 0.25, 0.5, 1)] == [longest // n for n in (4, 4, 2, 1, 1)]
        with pytest.raises(InputError):
            task.preset("small", doublings=9)
    assert [tasks.find("k_hop").preset(hops=3).stage(p).hops for p in (0, 0.2, 0.4, 1)] == [1, 2, 3, 3]


# ------------------------------------------------------------------------------------------------------------ language


def test_scan_is_the_published_one():
    assert len(commands()) == len(set(commands())) == 20_910
    told = {
        "jump": "JUMP",
        "turn opposite left": "LTURN LTURN",
        "jump around right": "RTURN JUMP " * 4,
        "look after walk twice": "WALK WALK LOOK",
        "turn around left thrice and run opposite right": "LTURN " * 12 + "RTURN RTURN RUN",
    }
    for command, actions in told.items():
        assert tuple(command.split()) in commands() and carry_out(tuple(command.split())) == actions.split()
    sizes = [len(carry_out(c)) for c in commands()]
    assert max(sizes) == 48 and sum(size > 22 for size in sizes) == 3920, "the length split of the paper"


def test_scan_keeps_its_splits_apart():
    task = tasks.find("scan").preset()
    seen = {}
    for split in ("train", "test"):
        rows = [task.sample(500, generator=seeded(seed), split=split).inputs.tolist() for seed in range(3)]
        seen[split] = {tuple(row) for row in itertools.chain(*rows)}
    assert not seen["train"] & seen["test"]
    long = task.sample(64, 58, generator=seeded(), split="test")
    assert (long.mask.sum(1) > 23).all()
    with pytest.raises(InputError, match="No command of this split"):
        task.preset(train_length=9).sample(1, 20, generator=seeded())


def test_icll_allows_what_the_automaton_allows():
    task, batch = drawn("icll", rows=32)
    assert batch.allowed is not None
    counts = batch.allowed[batch.mask].sum(-1)
    assert counts.min() >= 1 and counts.max() <= 3
    assert batch.allowed[batch.mask].gather(1, batch.targets[batch.mask].unsqueeze(1)).all()
    for row in range(32):  # the same beginning of a word leads to the same state
        seen: dict[tuple, list] = {}
        word: tuple[int, ...] = ()
        for t, token in enumerate(batch.inputs[row].tolist()):
            word = () if token == task.symbols else (*word, token)
            assert seen.setdefault(word, batch.allowed[row, t].tolist()) == batch.allowed[row, t].tolist()


def test_a_gap_does_not_move_the_walk():
    for grammar_gaps in (False, True):
        task, batch = drawn("selectivbench", grammar_gaps=grammar_gaps)
        assert batch.allowed is not None
        after = batch.inputs[:, 1:].clamp(max=task.symbols - 1)
        told, real = batch.allowed[:, :-1].gather(2, after.unsqueeze(-1)).squeeze(-1), batch.mask[:, :-1]
        assert told[real].all() and not real.all()
        if grammar_gaps:
            assert batch.inputs.max() < task.symbols
            assert not told[~real].any(), "a gap has symbols that may not come next"


def test_text_is_of_the_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"abc\n" * 200)
    task = tasks.find("text").preset("small", data=(str(tmp_path / "a.txt"),), heldout=0.5)
    batch = task.sample(4, 16, generator=seeded())
    for row, targets in zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True):
        assert bytes([*row, targets[-1]]) in b"abc\n" * 200 and row[1:] == targets[:-1]
    with pytest.raises(InputError, match="needs one more"):
        task.sample(1, 1000, generator=seeded())
    with pytest.raises(InputError, match="no such file"):
        tasks.find("text").preset(data=("/nowhere",)).sample(1, generator=seeded())


# --------------------------------------------------------------------------------------------------------------- chaos


def test_lorenz96_moves_energy_and_loses_none():
    x = torch.randn(5, 12, generator=seeded(), dtype=torch.float64)
    advection = lorenz96(x, 0.0) + x
    torch.testing.assert_close((x * advection).sum(-1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    rest = torch.full((1, 12), 8.0, dtype=torch.float64)
    torch.testing.assert_close(rk4(lambda x: lorenz96(x, 8.0), rest, 0.05), rest)


def test_runge_kutta_is_of_fourth_order():
    x = torch.randn(1, 12, generator=seeded(), dtype=torch.float64)

    def end(steps: int) -> torch.Tensor:
        here = x
        for _ in range(steps):
            here = rk4(lambda x: lorenz96(x, 8.0), here, 0.4 / steps)
        return here

    errors = [(end(n) - end(512)).norm().item() for n in (16, 32)]
    assert 12 < errors[0] / errors[1] < 20


def exponent(task, start: torch.Tensor, steps: int, unit: float) -> float:
    """The largest Lyapunov exponent, by Benettin's method: a small distance is measured and made small again."""
    here, near = start, start * (1 + 1e-9)
    near = here + (near - here)
    grown = 0.0
    small = (near - here).abs().pow(2).sum(-1).sqrt()
    for step in range(steps):
        here, near = task.next(here), task.next(near)
        apart = (near - here).abs().pow(2).sum(-1).sqrt()
        grown += 0.0 if step < steps // 4 else (apart / small).log().mean().item()
        shape = (-1,) + (1,) * (here.dim() - 1)
        near = here + (near - here) * (small / apart).view(shape)
    return grown / (steps - steps // 4) / unit


@pytest.mark.parametrize(
    ("task", "unit", "known", "steps"),
    [
        (Lorenz96(), 0.05, 1.68, 200),
        pytest.param(KuramotoSivashinsky(), 0.25, 0.048, 4000, marks=pytest.mark.slow),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_lyapunov_exponents_are_the_known_ones(task, unit, known, steps):
    found = exponent(task, _attractor(task)[:16], steps, unit)
    assert found == pytest.approx(known, rel=0.25)


def test_kuramoto_sivashinsky_grows_at_first_as_the_linear_equation():
    task = KuramotoSivashinsky()
    for mode in (1, 2, 3, 5):
        k = 2 * math.pi * mode / task.LENGTH
        state = torch.zeros(1, task.GRID // 2 + 1, dtype=torch.complex128)
        state[0, mode] = 1e-9
        rate = (task.next(state)[0, mode].abs() / 1e-9).log().item() / task.STEP
        assert rate == pytest.approx(k**2 - k**4, rel=1e-6)


def test_kuramoto_sivashinsky_of_half_the_step():
    task = KuramotoSivashinsky()
    ends = []
    for steps in (8, 16, 128):
        finer = type("Finer", (KuramotoSivashinsky,), {"STEP": task.STEP / steps})()
        here = _attractor(task)[:4]
        for _ in range(steps):
            here = finer.next(here)
        ends.append(finer.show(here))
    errors = [(x - ends[2]).norm().item() for x in ends[:2]]
    assert errors[1] < errors[0] / 10 and errors[0] < 1e-5


def test_mackey_glass_rests_at_one():
    """0.2 x / (1 + x¹⁰) = 0.1 x at x = 1."""
    task = MackeyGlass()
    rest = torch.ones(1, task.needed, dtype=torch.float64)
    torch.testing.assert_close(task.next(rest), rest)


def test_mackey_glass_is_that_of_a_hundred_steps_for_one():
    task = MackeyGlass()
    coarse = torch.full((1, task.needed), 0.5, dtype=torch.float64)
    fine = [0.5] * 1701
    for _ in range(100):
        coarse = task.next(coarse)
        for _ in range(100):  # Heun's method
            x, now, then = fine[-1], fine[-1701], fine[-1700]
            a = mackey_glass(x, now)
            fine.append(x + 0.005 * (a + mackey_glass(x + 0.01 * a, then)))
    assert task.show(coarse).item() == pytest.approx(fine[-1], abs=5e-3)


@pytest.mark.parametrize("name", ["lorenz96", "kuramoto_sivashinsky", "mackey_glass"])
def test_forecasts_have_unit_variance(name):
    task = tasks.find(name).preset()
    batch = task.sample(64, 128, generator=seeded())
    assert batch.inputs.mean().abs() < 0.1 and batch.inputs.var().item() == pytest.approx(1, abs=0.12)
