"""The threads, OpenMP's or our own: the same bits for every number of them, after a fork, and from several Python
threads at once."""

from __future__ import annotations

import os
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch

from ritornello import ops
from ritornello.kernels import registry
from ritornello.kernels.native import _library
from ritornello.kernels.registry import backend
from ritornello.testing.op_check import parted

pytestmark = pytest.mark.skipif(not _library.available(), reason="the native library is not built")


@pytest.fixture(autouse=True, params=("team", "own"))
def _threads(request):
    """PyTorch's OpenMP where it is found, and our own pool; all is put back afterwards."""
    if request.param == "team" and _library.team() is None:
        pytest.skip("PyTorch's OpenMP runtime is not found here")
    before = torch.get_num_threads()
    _library.load().rit_set_team(_library.team() if request.param == "team" else None)
    yield
    _library.load().rit_set_team(_library.team())
    torch.set_num_threads(before)


@cache
def calls():
    """One call per op, large enough for several threads: (op, its tensors, its other arguments).

    Drawn once: PyTorch's own sigmoid gives other bits for another number of threads.
    """
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=draw)

    steps = normal(3, 300, 130).sigmoid()
    b = torch.complex(normal(1, 200, 70), normal(1, 200, 70))
    return {
        "diagonal_scan": ((steps, normal(3, 300, 130)), {}),
        "complex diagonal_scan": ((b / (1 + b.abs()), b), {}),
        "causal_conv": ((normal(2, 400, 300), normal(300, 4), normal(300)), {"activation": "silu"}),
        "selective_scan": (
            (normal(2, 100, 130), steps[:2, :100], -normal(130, 16).exp(), normal(2, 100, 16), normal(2, 100, 16)),
            {},
        ),
        "softmax_scan": ((normal(1, 300, 70), normal(1, 300, 70)), {}),
        "softmax_scan of vectors": ((normal(3, 300, 5), normal(3, 300, 5, 24)), {}),
        "delta_rule": (
            (normal(1, 70, 2, 20), normal(1, 70, 2, 20) / 5, normal(1, 70, 4, 40), steps[:1, :70, :4]),
            {"log_decay": -steps[1:2, :70, :4]},
        ),
        # One row of three units of columns, which threads share; a matrix too large for a cache; rows.
        "lstm": ((normal(1, 120, 4, 192), normal(4, 1, 192, 192) / 14), {}),
        "lstm in bfloat16": ((normal(1, 120, 4, 192).bfloat16(), (normal(4, 1, 192, 192) / 14).bfloat16()), {}),
        "lstm that is large": ((normal(3, 12, 4, 448), normal(4, 1, 448, 448) / 21), {}),
        "lstm of rows": ((normal(20, 30, 4, 64), normal(4, 1, 64, 64) / 8), {}),
        "gru": ((normal(1, 120, 3, 192), normal(3, 1, 192, 192) / 14), {}),
        "mgu": ((normal(1, 120, 2, 192), normal(2, 1, 192, 192) / 14), {}),
        "mgu in bfloat16": ((normal(1, 120, 2, 192).bfloat16(), (normal(2, 1, 192, 192) / 14).bfloat16()), {}),
        "elman of packed rows": (
            (normal(1, 300, 192), normal(1, 192, 192) / 14),
            {"cu_seqlens": torch.tensor([0, 120, 300])},
        ),
        "slstm of heads": ((normal(1, 120, 4, 256), normal(4, 2, 128, 128) / 11), {}),
        "rms_norm": ((normal(3, 300, 130), normal(130), normal(3, 300, 130)), {}),
        "swiglu": ((normal(3, 300, 130), normal(3, 300, 130)), {}),
    }


def run(name):
    """Outputs, states and gradients of one call."""
    tensors, options = calls()[name]
    tensors = [t.detach().requires_grad_() for t in tensors]
    with backend("native"):
        op = getattr(ops, re.split(" of | in | that ", name.removeprefix("complex "))[0])
        output, last = parted(op(*tensors, **options))
    grads = torch.autograd.grad(output, tensors, torch.ones_like(output))
    return [output, *last, *grads]


TEAMS = [name for name in calls() if name.startswith(("lstm", "gru", "mgu", "elman", "slstm"))]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", list(calls()))
def test_same_bits_for_every_number_of_threads(name):
    torch.set_num_threads(1)
    alone = run(name)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        assert same(alone, run(name)), f"{threads} threads"


def test_several_python_threads_at_once():
    torch.set_num_threads(3)
    names = [name for name in calls() for _ in range(6)]
    alone = {name: run(name) for name in calls()}
    with ThreadPoolExecutor(4) as pool:
        for name, found in zip(names, pool.map(run, names), strict=True):
            assert same(alone[name], found), name


@pytest.mark.parametrize("parting", [1, 2, 2**62])
@pytest.mark.parametrize("name", TEAMS)
def test_same_bits_whenever_a_team_parts(name, parting):
    """All members come, whatever else the machine does, and part at the first or second meeting, or never."""
    torch.set_num_threads(1)
    alone = run(name)
    _library.load().rit_set_parting(parting)
    try:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            assert same(alone, run(name)), f"{threads} threads"
    finally:
        _library.load().rit_set_parting(0)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads cannot be put on one core here")
@pytest.mark.parametrize("name", ["lstm", "mgu", "mgu in bfloat16"])
def test_threads_that_wait_for_each_other_on_one_core(name):
    """They keep each other waiting at every step, and part: the one that goes on finds all columns."""
    torch.set_num_threads(1)
    alone = run(name)
    torch.set_num_threads(2)
    run(name)
    threads = [int(t) for t in os.listdir("/proc/self/task")]
    before = os.sched_getaffinity(0)
    try:
        for thread in threads:
            os.sched_setaffinity(thread, {min(before)})
        assert all(same(alone, run(name)) for _ in range(2))
    finally:
        for thread in threads:
            os.sched_setaffinity(thread, before)


@pytest.mark.parametrize("op", ("diagonal_scan", "gated_scan", "softmax_scan", "block_scan"))
def test_the_number_of_threads_changes_during_a_call(op):
    """Another Python thread may set it: the items of a call must not follow it from one to the next."""
    torch.set_num_threads(2)
    draw = torch.Generator().manual_seed(0)
    first, second = (torch.rand(3, 100, 500, generator=draw) for _ in range(2))
    if op == "block_scan":
        first, second = first[:, :, None, None].expand(-1, -1, 2, 2, -1) / 2, second.unsqueeze(2).expand(-1, -1, 2, -1)

    def scan():
        with backend("native"), torch.no_grad():
            return getattr(ops, op)(first, second)[0]

    wanted, done = scan(), threading.Event()

    def change():
        while not done.is_set():
            for threads in range(1, 9):
                _library.load().rit_set_threads(threads)

    other = threading.Thread(target=change)
    other.start()
    try:
        assert all(torch.equal(scan(), wanted) for _ in range(40))
    finally:
        done.set()
        other.join()
        _library.load().rit_set_threads(torch.get_num_threads())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_after_a_fork():
    """The child has the parent's memory and none of its threads, neither OpenMP's nor ours, and must start its own."""
    torch.set_num_threads(2)
    steps = torch.rand(2, 500, 200)

    def scan():
        with backend("native"), torch.no_grad():
            return ops.diagonal_scan(steps, steps)[0].numpy().tobytes()  # PyTorch's own threads do not survive a fork

    wanted = scan()
    child = os.fork()
    if child == 0:
        os._exit(0 if all(scan() == wanted for _ in range(5)) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert scan() == wanted


def test_openmp_is_found_where_pytorch_uses_it():
    if "OpenMP" not in torch.__config__.parallel_info().split("ATen parallel backend:")[-1] or os.name != "posix":
        pytest.skip("PyTorch has other threads here")
    assert _library.team() is not None


def test_threads_that_leave_a_backend_in_another_order():
    first, second = backend("torch"), backend("native")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert registry.forced() == "native"
    second.__exit__(None, None, None)
    assert registry.forced() == ""
