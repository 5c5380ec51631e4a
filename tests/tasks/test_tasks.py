"""Every task of the catalogue: its solver is right, guessing scores chance, nothing leaks, seeds decide everything."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from ritornello import layers, tasks
from ritornello.errors import InputError
from ritornello.tasks import Batch, Figure, Task, Training

NAMES = tuple(tasks.catalogue())
CASES = [(name, preset) for name in NAMES for preset in ("small", "paper")]

ROWS = 256
FILES = ("text",)  # has no rule: what follows a text is only known by looking it up
TOLD = {"dyck": 0.5, "k_hop": 0.3, "selectivbench": 0.5}
"""How far from chance to perfect the present token alone leads by design: a bracket just opened is the one to close."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows_for(task: Task) -> int:
    """Fewer rows of the long sequences of a paper."""
    return max(4, min(ROWS, (100_000 // task.inputs if task.float_inputs else 30_000) // task.train_length))


def drawn(task: Task, seed: int = 0, **options) -> Batch:
    return task.sample(rows_for(task), generator=seeded(seed), **options)


def deviation(task: Task, batch: Batch) -> float:
    """Four standard deviations of the score of a guess, and of what its mean is off by itself."""
    if task.kind == "regress":
        return 0.35 * task.chance
    return 4 * (task.chance * (1 - task.chance) / int(batch.mask.sum())) ** 0.5 + 1e-9


def preset_of(name: str, preset: str) -> Task:
    if name == "digits":
        pytest.importorskip("sklearn")
    return tasks.find(name).preset(preset)


@pytest.fixture(params=CASES, ids="-".join)
def task(request) -> Task:
    return preset_of(*request.param)


@pytest.fixture(params=NAMES)
def small(request) -> Task:
    return preset_of(request.param, "small")


# ------------------------------------------------------------------------------------------------------ what is drawn


def test_shapes_and_dtypes(task):
    for split in ("train", "test"):
        batch = drawn(task, split=split)
        rows, length = batch.mask.shape
        assert rows == rows_for(task) and length <= task.train_length
        assert batch.mask.dtype == torch.bool and batch.mask.any()
        if task.float_inputs:
            assert batch.inputs.shape == (rows, length, task.inputs) and batch.inputs.dtype == torch.float32
        else:
            assert batch.inputs.shape == (rows, length) and batch.inputs.dtype == torch.int64
            assert batch.inputs.min() >= 0 and batch.inputs.max() < task.inputs
        if task.kind == "regress":
            assert batch.targets.shape == (rows, length, task.classes) and batch.targets.dtype == torch.float32
        else:
            assert batch.targets.shape == (rows, length) and batch.targets.dtype == torch.int64
            answers = batch.targets[batch.mask]
            assert answers.min() >= task.answers.start and answers.max() < task.answers.stop <= task.classes
        assert not batch.targets[~batch.mask].any(), "what does not count is zero, and tells nothing"


def test_every_length_of_the_curve(small):
    assert list(small.test_lengths) == sorted(set(small.test_lengths)) and len(small.test_lengths) >= 2
    for length in (small.shortest, *small.test_lengths):
        batch = small.sample(3, length, generator=seeded(), split="test")
        assert batch.inputs.shape[:2] == batch.mask.shape == (3, length)


def test_one_seed_repeats_and_two_differ(small):
    one, again, other = drawn(small, 1), drawn(small, 1), drawn(small, 2)
    for a, b in zip(vars(one).values(), vars(again).values(), strict=True):
        assert a is b is None or torch.equal(a, b)
    assert one.inputs.shape != other.inputs.shape or not torch.equal(one.inputs, other.inputs)


def test_a_generator_moves_on(small):
    generator = seeded()
    one, two = (small.sample(8, generator=generator) for _ in range(2))
    assert one.inputs.shape != two.inputs.shape or not torch.equal(one.inputs, two.inputs)


# ------------------------------------------------------------------------------------------------------ what is scored


def test_the_solver_reaches_the_ceiling(task):
    for split in ("train", "test"):
        batch = drawn(task, split=split)
        score = task.score(task.solve(batch.inputs), batch)
        if task.ceiling in (0.0, 1.0):
            assert score == pytest.approx(task.ceiling, abs=1e-9)
        else:
            assert score == pytest.approx(task.ceiling, rel=0.05 if task.kind == "classify" else 0.25)


def test_a_guess_scores_chance(task):
    batch = drawn(task)
    score = task.score(task.guess(batch.inputs, generator=seeded(9)), batch)
    assert score == pytest.approx(task.chance, abs=deviation(task, batch))
    assert task.scaled(task.chance) == 0 and task.scaled(task.ceiling) == 1


def test_loss_of_certainty_and_of_ignorance(small):
    batch = drawn(small)
    if small.kind == "regress":
        assert small.loss(batch.targets, batch) == 0
    else:
        right = 50.0 * torch.nn.functional.one_hot(batch.targets, small.classes)
        assert small.loss(right, batch) < 1e-6 and small.score(right, batch) == 1
        nothing = torch.zeros(*batch.targets.shape, small.classes)
        assert small.loss(nothing, batch).item() == pytest.approx(torch.tensor(small.classes).log().item())


def test_longer_rows_are_scored_beyond_the_training_length(small):
    """Where a longer row begins as one of training does, what is said up to there is worth nothing; elsewhere it is."""
    length = small.test_lengths[-1]
    batch = small.sample(32, length, generator=seeded(), split="test")
    right = batch.targets if batch.allowed is None else batch.allowed.long().argmax(-1)
    wrong = right + 1 if small.kind == "regress" else torch.where(right == small.classes - 1, right - 1, right + 1)
    if batch.allowed is not None:
        wrong = (~batch.allowed).long().argmax(-1)
    late = torch.arange(length) >= small.train_length
    late = late.view(1, -1, 1) if right.dim() == 3 else late
    early_only = small.score(torch.where(late, wrong, right), batch)
    late_only = small.score(torch.where(late, right, wrong), batch)
    if small.prefixes:
        perfect, hopeless = small.score(right, batch), small.score(wrong, batch)
        assert (early_only, late_only) == (pytest.approx(hopeless), pytest.approx(perfect))
        assert perfect != hopeless
        short = small.sample(32, small.train_length, generator=seeded(), split="test").mask.double().mean().item()
        begun = batch.mask[:, : small.train_length].double().mean().item()
        assert begun == pytest.approx(short, abs=0.06), "a longer row begins as one of training"
    else:
        asked_early = batch.mask[:, : small.train_length].any()
        assert (early_only != late_only) or not asked_early


# ------------------------------------------------------------------------------------------------------------- leaks


def test_answers_do_not_need_the_future(small):
    """Read up to a step that counts, the solver says the same as over the whole; else no causal model could."""
    batch = drawn(small)
    if small.name in FILES:
        pytest.skip("a short beginning is no place in the files")
    whole = small.solve(batch.inputs)
    for t in {int(t) for t in batch.mask.any(0).nonzero()[:, 0][[0, -1]]}:
        rows = batch.mask[:, t]
        torch.testing.assert_close(small.solve(batch.inputs[rows, : t + 1])[:, t], whole[rows, t])


def test_answers_are_not_told_by_the_place(small):
    """The answers to one row's inputs are no better than chance for another row."""
    batch = drawn(small, length=small.train_length)
    other = small.score(small.solve(batch.inputs.roll(1, 0)), batch)
    if small.kind == "regress":
        assert other > 0.9 * small.chance
    else:
        assert other <= blind(small, batch) + 2 * deviation(small, batch)


def blind(task: Task, batch: Batch) -> float:
    """The score of always saying what is most often right; near chance in a balanced task."""
    return max(task.chance, *(task.score(torch.full_like(batch.targets, c), batch) for c in task.answers))


def test_answers_are_not_told_by_the_present_token_alone(small):
    """A table from a token to the most frequent answer to it, learned on many rows, is little better than chance."""
    if small.float_inputs or small.name in FILES:
        pytest.skip("floats are no keys of a table, and a byte does tell something of the next")
    length = small.test_lengths[-1]
    learn, test = (small.sample(ROWS, length, generator=seeded(seed), split="test") for seed in (1, 2))
    counts = torch.zeros(small.inputs * small.classes)
    index = learn.inputs[learn.mask] * small.classes + learn.targets[learn.mask]
    table = counts.index_add(0, index, torch.ones(len(index))).view(small.inputs, small.classes).argmax(1)
    score = small.score(table[test.inputs], test)
    told = TOLD.get(small.name, 0.1)
    assert score < blind(small, test) + told * (1 - blind(small, test)) + deviation(small, test)


# ---------------------------------------------------------------------------------------------------- words and sizes


def test_a_task_says_what_it_is(small):
    about = small.about
    assert about.title and about.paper and len(about.tests) > 30 and about.metric in ("accuracy", "error")
    assert (about.metric == "error") == (small.kind == "regress")
    assert (type(small).__doc__ or "").strip()
    for figure in small.published.values():
        assert isinstance(figure, Figure) and figure.size and figure.source
    paper = type(small).preset()
    for one in (small, paper):
        assert isinstance(one.training, Training) and one.training.steps > 0 and one.training.learning_rates
        assert one.train_length in one.test_lengths and one.test_lengths[-1] > one.train_length
    assert set(type(small).small) <= {f.name for f in fields(small)}
    assert small != paper and small.train_length * small.training.batch <= 64 * 64


def test_published_figures_are_those_of_the_table():
    """The six columns of MAD, model by model, average to what the table says they do."""
    six = [tasks.find(name).published for name in tasks.catalogue() if name.startswith("mad_")]
    averages = {"attention": 0.764, "mlstm": 0.747, "rwkv7": 0.746, "mamba": 0.731, "delta_product": 0.723,
                "gated_delta_net": 0.712, "delta_net": 0.697, "gla": 0.679}  # fmt: skip
    assert len(six) == 6 and set(six[0]) == set(averages)
    for method, average in averages.items():
        assert sum(figures[method].value for figures in six) / 6 == pytest.approx(average, abs=1e-3)


def test_published_figures_are_of_layers_that_exist():
    """A figure that no layer's name leads to is never shown beside one; what has no layer here says so by its name."""
    elsewhere = {"elman", "stack_rnn", "tape_rnn", "s6", "hyena", "h3"}
    named = {method.removesuffix(", signed") for name in tasks.catalogue() for method in tasks.find(name).published}
    assert {n for n in named if " " not in n} - set(layers.catalogue()) <= elsewhere


def test_a_curriculum_ends_at_the_task(small):
    for progress in (0.0, 0.5, 1.0):
        stage = small.stage(progress)
        assert (stage.inputs, stage.classes) == (small.inputs, small.classes)
        assert drawn(stage).mask.any()
    assert small.stage(1.0) == small


# ---------------------------------------------------------------------------------------------------------- bad input


def test_an_unknown_task_or_preset_or_field():
    with pytest.raises(InputError, match=r"no task 'mqra'. Did you mean 'mqar'"):
        tasks.find("mqra")
    with pytest.raises(InputError, match="Did you mean 'small'"):
        tasks.find("mqar").preset("smal")
    with pytest.raises(InputError, match=r"has no field 'vocab'. Did you mean 'vocabulary'"):
        tasks.find("mqar").preset(vocab=3)


def test_what_cannot_be_drawn(small):
    with pytest.raises(InputError, match=f"takes {small.shortest} and more"):
        small.sample(1, small.shortest - 1, generator=seeded())
    with pytest.raises(InputError, match="wanted at least 1"):
        small.sample(0, generator=seeded())
    with pytest.raises(InputError, match="'train' or 'test'"):
        small.sample(1, generator=seeded(), split="valid")


def test_predictions_of_another_shape(small):
    batch = drawn(small)
    with pytest.raises(InputError, match="wanted"):
        small.score(torch.zeros(2, 2), batch)


def test_a_task_of_ones_own_has_a_name_of_its_own():
    with pytest.raises(InputError, match="wanted a subclass"):
        tasks.register(int)  # pyright: ignore[reportArgumentType]
    taken = type("Taken", (tasks.find("parity"),), {})
    with pytest.raises(InputError, match="belongs to Parity"):
        tasks.register(taken)
    assert tasks.register(tasks.find("parity")) is tasks.find("parity")
