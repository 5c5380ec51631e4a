"""The command line. Exit codes: 0 done, 1 our failure, 2 a mistake in what was asked, 130 Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from ritornello.cli import bench, compare, convert, demo, generate, info, layers, look, reproduce, train
from ritornello.errors import RitornelloError

__all__ = ["main"]

DONE, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130


def parser() -> argparse.ArgumentParser:
    """All commands with their options. Each command is a module with `NAME`, `HELP`, `add_options` and `run`."""
    top = argparse.ArgumentParser(prog="ritornello", description="Recurrent sequence models.", allow_abbrev=False)
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (train, generate, info, convert, layers, look, compare, reproduce, demo, bench):
        options = commands.add_parser(
            command.NAME, help=command.HELP, description=command.HELP, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter, epilog=command.EXAMPLES,
        )  # fmt: skip
        command.add_options(options)
        options.set_defaults(run=command.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code. A mistake is told on standard error in a sentence, with no traceback."""
    try:
        arguments = parser().parse_args(argv)
        arguments.run(arguments)
        sys.stdout.flush()
        return DONE
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains when it flushes
        return DONE
    except KeyboardInterrupt as interrupt:
        _tell(str(interrupt) or "Interrupted.")
        return INTERRUPTED
    except (RitornelloError, OSError) as error:  # an OSError: a disk that is full, a folder that may not be written
        _tell(str(error))
        return MISTAKE


def _tell(text: str) -> None:
    print(f"ritornello: {text}", file=sys.stderr)
