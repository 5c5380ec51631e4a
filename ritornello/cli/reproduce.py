"""``ritornello reproduce``: published claims, tried again in small runs."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ritornello.errors import InputError

if TYPE_CHECKING:
    from ritornello.lab.compare.pool import Outcome
    from ritornello.lab.reproduce import Finding

NAME = "reproduce"
HELP = "Try published claims again in small runs, and say what came out."
EXAMPLES = """\
  ritornello reproduce list
  ritornello reproduce negative_eigenvalues
  ritornello reproduce all --seeds 3 --out claims.jsonl
"""


def add_options(options: argparse.ArgumentParser) -> None:
    options.add_argument("names", nargs="+", metavar="NAME", help="claims; all of them by `all`; `list` tells them")
    options.add_argument("--seeds", type=int, default=3, metavar="N", help="runs of each contender (3)")
    options.add_argument("--jobs", type=int, metavar="N", help="processes (one for each core)")
    options.add_argument("--out", type=Path, metavar="FILE", help="keep every run in a file, and go on from it")


def run(arguments: argparse.Namespace) -> None:
    from ritornello.lab.reproduce import CLAIMS, choose, reproduce

    if arguments.names == ["list"]:
        for name, claim in CLAIMS.items():
            print(f"{name}\n{_indented(claim.claimed)}")
        return
    for name in ("seeds", "jobs"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            raise InputError(f"`{name}` is {value}; wanted 1 or more.")
    claims = choose(arguments.names)
    findings = []
    began = time.monotonic()
    try:
        for finding in reproduce(claims, arguments.seeds, arguments.jobs, arguments.out, _watch):
            findings.append(finding)
            print("\n".join(_told(finding, time.monotonic() - began)), flush=True)
            began = time.monotonic()
    except KeyboardInterrupt:
        kept = f"What is finished is in {arguments.out}; run the same again to go on."
        raise KeyboardInterrupt(
            f"Interrupted. {kept if arguments.out else 'Nothing was kept; with --out FILE it can be gone on with.'}"
        ) from None
    if len(findings) > 1:
        print(*(f"{finding.verdict or 'unfinished':<17} {finding.claim}" for finding in findings), sep="\n")


def _watch(outcome: Outcome, done: int, total: int) -> None:
    if outcome.progress is None and sys.stderr.isatty():
        print(f"\r{outcome.work['claim']}: {done} of {total} runs", end="\n" if done == total else "", file=sys.stderr)


def _told(finding: Finding, seconds: float) -> list[str]:
    """A finding in lines: what was claimed, what came out, the verdict."""
    from ritornello.lab.reproduce import CLAIMS

    claim = CLAIMS[finding.claim]
    lines = [f"{finding.claim}", _indented(f"claimed: {claim.claimed}"), _indented(f"source: {claim.source}")]
    for title, wanted, scores, met in finding.rows:
        told = " ".join(f"{score:.3f}" for score in scores)
        lines.append(f"  {'yes' if met else 'NO ':<4}{title:<42} wanted {wanted:<9} came out {told}")
    lines += [_indented(f"failed: {problem}") for problem in finding.problems]
    if claim.note:
        lines.append(_indented(f"note: {claim.note}"))
    seeds = max((len(scores) for _, _, scores, _ in finding.rows), default=0)
    lines.append(f"  verdict: {finding.verdict or 'unfinished'} ({seeds} seeds, {seconds:.0f} s)\n")
    return lines


def _indented(text: str) -> str:
    return textwrap.fill(text, 110, initial_indent="  ", subsequent_indent="    ")
