"""The library: every instruction set gives the same numbers, and what is missing or does not fit is said."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ritornello import ops
from ritornello.errors import BackendError, InputError
from ritornello.kernels import registry
from ritornello.kernels.native import SPECIFICATIONS, _library
from ritornello.kernels.native.build import BuildError, _cache, build, compiler
from ritornello.kernels.registry import backend

built = pytest.mark.skipif(not _library.available(), reason="the native library is not built")


def test_it_is_built_where_there_is_a_compiler():
    """Without it the tests of the native kernels are skipped, all of them."""
    assert _library.available() or compiler() is None, _library.REBUILD


def python(program: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, timeout=300
    )


CHECK = """
import torch
from ritornello.kernels.native import SPECIFICATIONS, _library
from ritornello.testing.op_check import check_op
from ritornello.testing.op_cases import cases, op_names
torch.set_num_threads(1)
for op in sorted(set(SPECIFICATIONS) & set(op_names())):
    for name in sorted({"plain", "odd sizes", "wide", "wide heads", "packed"} & set(cases(op))):
        check_op(op, "native", name, torch.float32)
    check_op(op, "native", "plain", torch.bfloat16)
print(_library.isa())
"""


@built
@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set_agrees_with_the_reference(isa):
    if not _library.load().rit_supports(isa.encode()):
        pytest.skip(f"this machine has no {isa}")
    done = python(CHECK, RITORNELLO_ISA=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [isa]


@built
def test_an_instruction_set_that_is_not_there_is_refused():
    done = python("from ritornello.kernels.native import _library; _library.isa()", RITORNELLO_ISA="avx1024")
    assert "BackendError: RITORNELLO_ISA is 'avx1024'; this machine runs portable" in done.stderr


MISSING = """
import warnings, torch
from ritornello import ops
from ritornello.kernels.registry import explain
x = torch.rand(1, 3, 4)
with warnings.catch_warnings(record=True) as said, explain() as log:
    warnings.simplefilter("always")
    for _ in range(3):
        h, _ = ops.diagonal_scan(x, x)
        ops.causal_conv(x, torch.rand(4, 2))
print([str(w.message) for w in said if "native" in str(w.message)])
print({line.backend for line in log})
"""


@pytest.mark.parametrize("library", ["/nowhere/_native.so", torch._C.__file__])
def test_without_the_library_another_backend_runs_and_it_is_said_once(library):
    """Where there is no file, and where it is older than its sources: any library without our functions."""
    done = python(MISSING, RITORNELLO_NATIVE_LIBRARY=library)
    assert done.returncode == 0, done.stderr
    said, backends = done.stdout.splitlines()
    assert said.count("python -m ritornello.kernels.native.build") == 1
    assert "native" not in backends


def test_forced_without_the_library_is_an_error():
    program = "import torch, ritornello.ops as o\nfrom ritornello.kernels.registry import backend\n"
    program += "with backend('native'): o.diagonal_scan(torch.rand(1, 3, 4), torch.rand(1, 3, 4))"
    done = python(program, RITORNELLO_NATIVE_LIBRARY="/nowhere/_native.so", PYTHONWARNINGS="ignore")
    assert "BackendError" in done.stderr
    assert "library is not built" in done.stderr


@built
def test_other_dtypes_and_devices_are_refused_before_c(monkeypatch):
    def entered(*_):
        raise AssertionError("C was entered")

    monkeypatch.setattr(_library.Entry, "__call__", entered)
    half, meta = torch.rand(1, 3, 4).half(), torch.rand(1, 3, 4, device="meta")
    with backend("native"):
        with pytest.raises(BackendError, match="float16"):
            ops.diagonal_scan(half, half)
        with pytest.raises(BackendError, match="float16"):
            ops.softmax_scan(half, half)
        with pytest.raises(BackendError, match="meta"):
            ops.diagonal_scan(meta, meta)
        with pytest.raises(BackendError, match="taps"):
            ops.causal_conv(torch.rand(1, 50, 4), torch.rand(4, 40))
        with pytest.raises(InputError, match="shape"):
            ops.causal_conv(torch.rand(1, 50, 4), torch.rand(5, 4))


@pytest.mark.parametrize("op", SPECIFICATIONS)
def test_every_kernel_is_a_module_with_both_directions(op):
    module = registry.lookup(op, "native").load()
    assert callable(module.forward)
    assert callable(module.backward)


@built
def test_inputs_are_left_alone():
    x = torch.rand(2, 70, 5)
    before = x.clone()
    with backend("native"):
        h, last = ops.diagonal_scan(x, x)
    assert torch.equal(x, before)
    assert len({x.data_ptr(), h.data_ptr(), last.data_ptr()}) == 3


def test_a_compiler_that_fails_is_named_with_what_it_did_and_the_cure(tmp_path, monkeypatch):
    for cc, did in (("false", "ended with code 1"), (str(tmp_path / "cc"), "cannot be run")):
        (tmp_path / "cc").write_bytes(b"\0\1")
        (tmp_path / "cc").chmod(0o755)
        monkeypatch.setenv("CC", cc)
        with pytest.raises(BuildError, match=rf"The C compiler '.*' {did}.*Set CC to a C compiler that works"):
            build(tmp_path / "out.so", jobs=1)


@pytest.mark.skipif(os.name != "posix", reason="owners and modes of POSIX")
def test_objects_are_kept_only_where_nobody_else_can_put_any(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "ritornello" / "native"
    assert _cache() == folder and folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o777)
    assert _cache() is None
    folder.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert _cache() is None
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    (tmp_path / "other" / "ritornello").mkdir(parents=True)
    (tmp_path / "other" / "ritornello" / "native").symlink_to(tmp_path)
    assert _cache() is None
