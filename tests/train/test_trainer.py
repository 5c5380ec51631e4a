"""The loop: it learns, it resumes exactly, and what goes wrong loses nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ritornello import hub
from ritornello.errors import CheckpointError, InputError
from ritornello.models import ByteTokenizer, LanguageModel, ModelConfig
from ritornello.tasks.text_files import Document
from ritornello.train import Divergence, Interrupted, Settings, Tokens, Trainer, latest
from ritornello.train.log import read_curve

TEXT = Tokens.of([Document(str(i), b"a recurrence is written once; %d\n" % i * 20) for i in range(8)], ByteTokenizer())
HELD = Tokens.of([Document("h", b"a recurrence is written once; 9\n" * 4)], ByteTokenizer())
SMALL = {"steps": 12, "batch": 2, "length": 16, "lr": 1e-2, "eval_every": 6}


def model(layer: str = "min_gru", **options) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(ModelConfig(vocab_size=256, width=16, pattern=layer, depth=2, **options))


def trainer(out: Path, made: LanguageModel | None = None, data: Tokens = TEXT, **settings) -> Trainer:
    return Trainer(made or model(), data, HELD, Settings(**SMALL | settings), out, show=False)


def resumed(out: Path, **settings) -> Trainer:
    folder = latest(out)
    assert folder is not None
    again = trainer(out, hub.load(folder), **settings)
    again.restore(folder)
    return again


def weights(out: Path) -> dict[str, torch.Tensor]:
    folder = latest(out)
    assert folder is not None
    return load_file(folder / "model.safetensors")


def test_it_learns(tmp_path):
    outcome = trainer(tmp_path, steps=60, carry_state=True).run()
    rows = [row for row in read_curve(tmp_path / "curve.csv") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 61))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert outcome.step == 60
    assert outcome.checkpoint == tmp_path / "step-00000060"
    assert 0 < outcome.bits_per_byte < 6
    assert (tmp_path / "curve.png").stat().st_size > 1000


class Killed(BaseException):
    """A kill, as the loop would see it if it saw one: nothing is saved any more."""


@pytest.mark.parametrize(
    "settings",
    [
        {"carry_state": True},
        {"carry_state": False},
        {"carry_state": True, "accumulate": 2, "bf16": True},
        {"carry_state": False, "accumulate": 2},
        {"carry_state": False, "optimizer": "muon"},
    ],
    ids=str,
)
def test_resuming_is_exact(tmp_path, settings, monkeypatch):
    trainer(tmp_path / "whole", model(dropout=0.1), **settings).run()
    broken = trainer(tmp_path / "broken", model(dropout=0.1), **settings)
    update = broken._update

    def until_nine(interrupted):
        if broken.step == 9:  # three steps after the checkpoint of step 6
            raise Killed
        return update(interrupted)

    monkeypatch.setattr(broken, "_update", until_nine)
    with pytest.raises(Killed):
        broken.run()
    assert latest(tmp_path / "broken") == tmp_path / "broken" / "step-00000006"
    again = resumed(tmp_path / "broken", **settings)
    assert again.step == 6
    again.run()
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert all(torch.equal(one[name], other[name]) for name in one)
    curves = [[(r["step"], r.get("loss")) for r in read_curve(tmp_path / f / "curve.csv")] for f in ("whole", "broken")]
    assert curves[0] == curves[1], "the rows of the lost steps were dropped and written again"


def test_the_carried_state_matters(tmp_path):
    """The test above would not see a state that is lost if losing it changed nothing."""
    trainer(tmp_path / "whole", carry_state=True).run()
    trainer(tmp_path / "broken", carry_state=True, steps=6).run()
    again = resumed(tmp_path / "broken", carry_state=True, steps=12)
    again.objective.carried = None
    again.run()
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "broken")
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_routers_keep_their_loads_even(tmp_path):
    """The weights differ from those of a run without, and models without routers are refused."""
    found = []
    for share in (0.0, 0.5):
        made = model("min_gru", ffn=("moe", {"experts": 4, "hidden": 16}))
        trainer(tmp_path / str(share), made, balance=share, steps=4).run()
        found.append(weights(tmp_path / str(share))["backbone.blocks.0.ffn.router.weight"])
    assert not torch.allclose(*found, atol=1e-4)
    with pytest.raises(InputError, match="none of the model's layers has a router"):
        trainer(tmp_path / "none", balance=0.5, steps=4).run()


def test_other_data_is_refused(tmp_path):
    trainer(tmp_path).run()
    other = Tokens.of([Document("o", b"something else " * 50)], ByteTokenizer())
    folder = tmp_path / "step-00000012"
    with pytest.raises(InputError, match="not what"):
        trainer(tmp_path, hub.load(folder), other).restore(folder)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_norm_of_all_gradients_is_clipped(tmp_path, optimizer):
    run = trainer(tmp_path, optimizer=optimizer, clip=1e-3, steps=1)
    norms = {}

    def note(optimizer, *_):
        norms.update({p: p.grad.norm() for group in optimizer.param_groups for p in group["params"]})

    for one in run.optimizers:
        one.register_step_pre_hook(note)
    run.run()
    assert set(norms) == set(run.objective.parameters())
    assert torch.stack(list(norms.values())).norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, where, optimizer):
    run = trainer(tmp_path, carry_state=True, optimizer=optimizer)

    def poison(step):
        def hook(_, grad_or_loss):
            return grad_or_loss * (float("nan") if run.step == step else 1)

        return hook

    if where == "loss":
        run.objective.register_forward_hook(lambda module, _, loss: poison(8)(module, loss))
    else:
        weight = next(run.objective.parameters())
        weight.register_hook(lambda grad: poison(8)(None, grad))
    with pytest.raises(Divergence, match=r"At step 9 .*nan.*step-00000006.*Lower the learning rate"):
        run.run()
    assert all(torch.isfinite(t).all() for t in weights(tmp_path).values())
    assert latest(tmp_path) == tmp_path / "step-00000006"


def test_ctrl_c_saves_after_the_step(tmp_path, monkeypatch):
    run = trainer(tmp_path, eval_every=100)
    at = run.batches.at

    def interrupted(step):
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return at(step)

    monkeypatch.setattr(run.batches, "at", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="step 5"):
        run.run()
    assert latest(tmp_path) == tmp_path / "step-00000005"
    assert signal.getsignal(signal.SIGINT) is handler
    resumed(tmp_path, eval_every=100).run()
    trainer(tmp_path / "whole", eval_every=100).run()
    one, other = weights(tmp_path / "whole"), weights(tmp_path)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_full_disk_stops_the_run_and_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    run = trainer(tmp_path)
    save = hub.save

    def full(made, folder):
        if run.step > 6:
            raise OSError(28, "No space left on device")
        save(made, folder)

    monkeypatch.setattr(hub, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*step-00000006.*--resume"):
        run.run()
    assert weights(tmp_path)
    assert not list(tmp_path.glob(".*"))


def test_by_the_clock_it_ends_in_time(tmp_path):
    run = trainer(tmp_path, steps=None, minutes=0.02, eval_every=None)
    outcome = run.run()
    assert run.progress == 1
    assert 1.2 <= outcome.seconds < 10
    assert len([r for r in read_curve(tmp_path / "curve.csv") if "heldout_bits_per_byte" in r]) >= 1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weight_decay_spares_norms_and_embeddings(tmp_path, optimizer):
    run = trainer(tmp_path, weight_decay=0.3, optimizer=optimizer)
    decays = {id(p): g["weight_decay"] for o in run.optimizers for g in o.param_groups for p in g["params"]}
    made = run.objective.model
    assert decays[id(made.embedding.weight)] == 0
    assert decays[id(made.backbone.blocks[0].mixer_norm.weight)] == 0
    assert decays[id(made.backbone.blocks[0].ffn.out_proj.weight)] == 0.3
    held = [id(p) for o in run.optimizers for g in o.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in made.parameters()), "each parameter has one optimiser"


@pytest.mark.parametrize("tied", [True, False])
def test_muon_takes_the_projections_only(tmp_path, tied):
    run = trainer(tmp_path, model(tied_embeddings=tied), optimizer="muon")
    muon, adamw = run.optimizers
    made = run.objective.model
    taken = {id(p) for g in muon.param_groups for p in g["params"]}
    assert id(made.backbone.blocks[0].ffn.out_proj.weight) in taken
    assert not {id(made.embedding.weight), id(getattr(made.head, "weight", None))} & taken
    assert isinstance(adamw, torch.optim.AdamW)
    run.run()
