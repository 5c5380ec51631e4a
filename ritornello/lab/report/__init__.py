"""The report of a comparison: one page to look at, and the same for other programs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ritornello.lab.compare.folder import Folder, write_text
from ritornello.lab.report.html import page
from ritornello.lab.report.summary import Cell, Summary
from ritornello.lab.report.tables import as_csv, as_markdown

__all__ = ["Cell", "Summary", "write_report"]


def write_report(folder: Folder, records: Iterable[dict[str, Any]]) -> list[Path]:
    """Write ``report.html``, ``report.md`` and ``scores.csv`` into the folder, of whatever is finished."""
    summary = Summary(folder.plan, records)
    texts = {
        "report.html": page(folder, summary),
        "report.md": as_markdown(folder, summary),
        "scores.csv": as_csv(summary),
    }
    for name, text in texts.items():
        write_text(folder.path / name, text)
    return [folder.path / name for name in texts]
