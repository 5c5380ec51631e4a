"""What it takes to load a checkpoint: no more memory than its weights, and a bar where it takes long."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ritornello as rt
from ritornello.hub.progress import progress

PEAK = """
import sys
import torch, ritornello as rt
def peak():                                                      # ru_maxrss would begin with that of the parent
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) * 1024
rt.LanguageModel(rt.ModelConfig(vocab_size=16, width=16))(torch.zeros(1, 3, dtype=torch.long))
with torch.device("meta"):
    rt.LanguageModel(rt.ModelConfig(vocab_size=16, width=16))    # PyTorch imports 60 MB of modules for it
before = peak()
model = rt.load(sys.argv[1])
sum(float(p.sum()) for p in model.parameters())                 # what was mapped is read now
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_loading_takes_the_memory_of_the_weights(tmp_path: Path) -> None:
    pattern, ffn = ("attention", {"heads": 8, "kv_heads": 4}), ("gated_mlp", {"hidden": 2048})
    config = rt.ModelConfig(vocab_size=8000, width=512, pattern=pattern, depth=12, ffn=ffn, tied_embeddings=False)
    rt.save(rt.LanguageModel(config), tmp_path, format="llama")
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size > 150e6
    command = [sys.executable, "-c", PEAK, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(rt.__file__).parents[1], capture_output=True, text=True, check=True)
    assert 0.9 < int(done.stdout) / size < 1.3


@pytest.mark.parametrize(
    ("size", "terminal", "shown"), [(1 << 29, True, True), (1 << 29, False, False), (9, True, False)]
)
def test_progress_is_shown_where_it_takes_long(size, terminal, shown, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert list(progress([size, size], lambda n: n, "Loading weights")) == [size, size]
    assert ("Loading weights" in capsys.readouterr().err) == shown


def test_what_keeps_its_layout_is_not_copied(tmp_path: Path) -> None:
    torch.manual_seed(0)
    rt.save(rt.LanguageModel(rt.ModelConfig(vocab_size=64, width=32, pattern="mamba", ffn=None)), tmp_path, "mamba")
    model = rt.load(tmp_path)
    places = [p.data_ptr() for p in model.parameters()]
    assert max(places) - min(places) < (tmp_path / "model.safetensors").stat().st_size, "not on the pages of one file"
