"""The demo on a small library, with a small model."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from ritornello.cli import demo, main
from ritornello.models import ModelConfig

ROOT = Path(__file__).resolve().parents[2]


def test_the_whole_way(tmp_path, capfd, monkeypatch):
    library = tmp_path / "library"
    (library / "site-packages").mkdir(parents=True)
    for i in range(12):
        (library / f"m{i}.py").write_text(f"import os\n\n\ndef f{i}(x):\n    return x + {i}\n" * 20)
    (library / "site-packages" / "t.py").write_text("left out")
    (library / "LICENSE.txt").write_text("no source")
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(library))
    monkeypatch.setattr(demo, "MODEL", ModelConfig(vocab_size=256, width=16, depth=1, pattern="min_gru"))
    monkeypatch.setattr(demo, "TRAINING", demo.TRAINING | {"batch": 2, "length": 16})
    monkeypatch.setattr(demo, "HELDOUT", 0.2)
    monkeypatch.setattr(demo, "TOKENS", 20)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    out = tmp_path / "out"
    for _ in range(2):  # it may be run again
        assert main(["demo", "--minutes", "0.02", "--out", str(out)]) == 0
        told = capfd.readouterr().out
        assert "in 12 files" not in told.partition("held out")[0], "some files are held out"
        assert all(word in told for word in ("xz -9", "bz2 -9", "this model", "streaming from 'import '", "goes on"))
        assert (out / "state.safetensors").exists()
        assert (out / "curve.csv").exists()
    text = tmp_path / "text"
    text.write_text("some text of yours\n" * 100)
    assert main(["train", "--data", str(text), "--layer", "min_gru", "--width", "16", "--depth", "1", "--batch", "2",
                 "--length", "16", "--steps", "2", "--out", str(tmp_path / "yours")]) == 0  # fmt: skip
    assert main(["demo", "--out", str(tmp_path / "yours")]) == 2, "a run of yours stays"
    assert "a run of yours" in capfd.readouterr().err
