"""Ctrl-C while the command line is still importing: it ends as it does later, with 130 and no traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import PurePath

__all__ = ["guard", "hand_over"]

INTERRUPTED = 130


def guard() -> None:
    """End at once on Ctrl-C, where this process is the program ``ritornello`` or ``python -m ritornello``.

    `orig_argv`, not `argv`: a worker that is spawned has its parent's `argv`, and is no command line. Who ignores the
    signal (nohup) or has a handler keeps it.
    """
    words = sys.orig_argv[1:3]
    is_command = words == ["-m", "ritornello"] or (bool(words) and PurePath(words[0]).stem == "ritornello")
    if not is_command or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def hand_over() -> None:
    """From now on Ctrl-C is a KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(*_: object) -> None:
    os.write(2, b"ritornello: Interrupted.\n")
    os._exit(INTERRUPTED)  # an exception would be printed, or caught by whatever is being imported
