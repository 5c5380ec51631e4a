"""Build the native library: every kernel source for every instruction set and type, linked into one shared object.

``python -m ritornello.kernels.native.build`` builds in place; ``setup.py`` calls `build` for an installation. It needs
a C compiler (``CC``, or cc, gcc or clang) and nothing else: no Python headers, no PyTorch.

With ``--sanitize`` it writes `SANITIZED`, for the tests of the ops under the address sanitizer:

    LD_PRELOAD=$(cc -print-file-name=libasan.so) ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc \\
    RITORNELLO_NATIVE_LIBRARY=ritornello/kernels/native/_native_sanitized.so pytest tests/ops -k native
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

__all__ = ["LIBRARY", "SANITIZED", "BuildError", "build", "compiler"]

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
LIBRARY = "_native.so"
SANITIZED = "_native_sanitized.so"

ONCE = {"cpu.c", "parallel.c"}
"""Sources that are compiled once, for any machine. Every other one is a kernel and is compiled once per variant."""

TYPES = ("f32", "f64", "bf16")
WIDE = {
    "avx2": ["-mavx2", "-mfma", "-mf16c", "-mbmi2"],
    "avx512": ["-mavx2", "-mfma", "-mf16c", "-mbmi2", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"],
}
# Not -ffast-math: NaN and infinities are values here. The C library's errno and floating traps are not used.
COMMON = ["-std=gnu11", "-fPIC", "-pthread", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"]
COMMON += ["-ffp-contract=fast", "-Wall", "-Wextra", "-Wno-psabi"]
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]

CURE = "Set CC to a C compiler that works (gcc or clang), or install one."


class BuildError(RuntimeError):
    """There is no compiler, or it refused a source."""


def compiler() -> list[str] | None:
    """The C compiler's command, or None where there is none."""
    if os.environ.get("CC"):
        command = shlex.split(os.environ["CC"])
        return command if shutil.which(command[0]) else None
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    return [found] if found and sys.platform != "win32" else None


def variants() -> list[tuple[str, str, list[str]]]:
    """(instruction set, type, flags) of every compilation of a kernel. On ARM the portable one is NEON."""
    sets = {"portable": [], **(WIDE if platform.machine().lower() in ("x86_64", "amd64") else {})}
    return [
        (isa, kind, [*flags, f"-DRIT_ISA={isa}", f"-DRIT_{kind.upper()}"])
        for isa, flags in sets.items()
        for kind in TYPES
    ]


def build(output: Path, *, sanitize: bool = False, cache: Path | None = None, jobs: int | None = None) -> Path:
    """Compile and link into the file `output`. Objects stay in `cache`: only what changed is compiled again.

    Raises:
        BuildError: no compiler, or one that fails; its messages are in the error.
    """
    command = compiler()
    if command is None:
        raise BuildError("There is no C compiler (CC, cc, gcc or clang). Install one, or set CC.")
    flags = COMMON + (SANITIZE if sanitize else ["-O3"])
    tasks = []
    for source in sorted(SOURCES.glob("*.c")):
        if source.name in ONCE:
            tasks.append((source, flags))
        else:
            tasks += [(source, flags + extra) for _, _, extra in variants()]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if cache is None else cache
        with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
            objects = list(pool.map(lambda task: _compile(command, task[0], task[1], folder), tasks))
        output.parent.mkdir(parents=True, exist_ok=True)
        linked = output.with_name(f"{output.name}.{os.getpid()}")
        _run([*command, "-shared", *flags, "-o", str(linked), *map(str, objects), "-lm"])
        os.replace(linked, output)  # a process that has the old one open keeps it
    return output


def _compile(command: list[str], source: Path, flags: list[str], folder: Path) -> Path:
    headers = [h.read_bytes() for h in sorted(SOURCES.glob("*.h"))]
    key = hashlib.sha256(b"\0".join([repr((command, flags)).encode(), source.read_bytes(), *headers])).hexdigest()[:20]
    target = folder / f"{source.stem}-{key}.o"
    if not target.exists():
        written = target.with_suffix(f".{os.getpid()}.o")
        _run([*command, *flags, "-c", str(source), "-o", str(written)])
        os.replace(written, target)
    return target


def _cache() -> Path | None:
    """A folder of the user's that nobody else can write to, else None: what lies there is linked into what we run."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "ritornello" / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except (OSError, RuntimeError):  # no home, or none to write to
        return None
    if not stat.S_ISDIR(found.st_mode):
        return None
    return folder if os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & 0o022) else None


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"The C compiler {command[0]!r} cannot be run ({error.strerror}). {CURE}") from None
    if done.returncode:
        ended = f"ended with code {done.returncode}" if done.returncode > 0 else f"died of signal {-done.returncode}"
        told = done.stderr.strip() or done.stdout.strip() or "It said nothing."
        raise BuildError(f"The C compiler {command[0]!r} {ended}. {CURE}\n{shlex.join(command)}\n{told}")
    if done.stderr:
        print(done.stderr, file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser("python -m ritornello.kernels.native.build", description="Build the C kernels.")
    parser.add_argument("--sanitize", action="store_true", help="with the address and undefined-behaviour sanitizers")
    parser.add_argument("--output", type=Path, help="the file to write; by default the one that is loaded")
    parser.add_argument("--jobs", type=int, help="compilers at once")
    options = parser.parse_args()
    output = options.output or HERE / (SANITIZED if options.sanitize else LIBRARY)
    try:
        print(build(output, sanitize=options.sanitize, cache=_cache(), jobs=options.jobs))
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
