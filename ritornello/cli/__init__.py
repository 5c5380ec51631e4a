"""The command line. Exit codes: 0 done, 1 our failure, 2 a mistake in what was asked, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch

from ritornello import __version__, _interrupts
from ritornello.cli import bench, compare, convert, demo, generate, info, layers, look, reproduce, train
from ritornello.errors import RitornelloError

__all__ = ["main"]

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class _Parser(argparse.ArgumentParser):
    """Mistakes in one sentence; the usage, which is many lines for some commands, is what --help is for."""

    def error(self, message: str) -> NoReturn:
        _tell(f"{message[:1].upper()}{message[1:]}. See: {self.prog} --help")
        raise SystemExit(MISTAKE)


def parser() -> argparse.ArgumentParser:
    """All commands with their options. Each command is a module with `NAME`, `HELP`, `add_options` and `run`."""
    top = _Parser(
        prog="ritornello", description="Recurrent sequence models: train, run, compare and look at them.",
        epilog="`ritornello COMMAND --help` tells the options of a command, with examples.", allow_abbrev=False,
    )  # fmt: skip
    version = f"ritornello {__version__}, torch {torch.__version__}, Python {sys.version.split()[0]}"
    top.add_argument("--version", action="version", version=version)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, generate, info, convert, layers, look, compare, reproduce, demo, bench):
        options = commands.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter, epilog=f"examples:\n{command.EXAMPLES}",
        )  # fmt: skip
        command.add_options(options)
        options.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. A mistake is told on standard error in a sentence, with no traceback."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # our caller closed it
    sys.stderr = sys.stderr or sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that knows no UTF-8, a name that is none
    try:
        _interrupts.hand_over()
        if not (sys.argv[1:] if argv is None else argv):
            parser().print_help(sys.stderr)
            raise SystemExit(MISTAKE)
        arguments = parser().parse_args(argv)
        with _told_warnings():
            arguments.run(arguments)
        sys.stdout.flush()
        return DONE
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
        return DONE
    except KeyboardInterrupt as interrupt:
        _tell(str(interrupt) or "Interrupted.")
        return INTERRUPTED
    except RitornelloError as error:
        _tell(str(error))
        return MISTAKE
    except OSError as error:  # a disk that is full, a folder that may not be written
        _tell(_refused(error))
        return MISTAKE
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)):
            raise
        _tell("There is not enough memory for that. Give a smaller model, a smaller batch or shorter sequences.")
        return MISTAKE


def _refused(error: OSError) -> str:
    """What the system would not do, in a sentence."""
    if error.strerror is None:
        return str(error)
    if error.filename is None:
        return f"What was written did not arrive: {error.strerror}. Look at where the output goes."
    cure = "Make room on the disk" if error.errno in FULL else "Check the path and its permissions"
    return f"{str(error.filename)!r}: {error.strerror}. {cure}."


@contextmanager
def _told_warnings() -> Iterator[None]:
    """Warnings as sentences, without the line of code that they come from."""

    def show(message: Any, category: type[Warning], *place: Any) -> None:
        if issubclass(category, UserWarning | RuntimeWarning):
            _tell(f"warning: {message}")
        else:
            usual(message, category, *place)

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        yield


def _tell(text: str) -> None:
    print(f"ritornello: {text}", file=sys.stderr)
