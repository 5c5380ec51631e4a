"""What was measured, as lines for a person and as a value for a program."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any

import torch

from ritornello.errors import BackendError
from ritornello.lab.bench.case import Row
from ritornello.lab.bench.ceilings import Ceilings
from ritornello.lab.bench.checkpoints import OP
from ritornello.lab.bench.peers import versions
from ritornello.lab.bench.run import Measured, Options, Result

if TYPE_CHECKING:
    from ritornello.lab.bench.methods import Line

__all__ = [
    "as_value",
    "ceiling_lines",
    "checkpoint_mean",
    "document",
    "drift_lines",
    "grid_lines",
    "lines",
    "machine",
    "methods_document",
]

SCHEMA = 1
DRIFT = 0.25


def as_value(row: Row, result: Result, ceilings: Ceilings, options: Options) -> dict[str, Any]:
    """A result as JSON: milliseconds, ratios (how many times as long the peer takes), targets and whether they are met.

    Nothing is judged of a quick run, nor of sizes other than the table's.
    """
    judged = not options.quick and result.sizes == row.sizes
    return {
        "row": row.name,
        "op": row.op,
        "peer": row.peer,
        "backend": row.backend or options.backend,
        "sizes": result.sizes,
        "error": result.error,
        "wrong": result.wrong,
        "note": result.note,
        "memory": result.memory,
        "memory_target": row.memory,
        "memory_met": _met(row.memory, result.memory) if judged else None,
        "passes": {name: _pass(row, name, m, ceilings, judged) for name, m in result.passes.items()},
    }


def _pass(row: Row, name: str, measured: Measured, ceilings: Ceilings, judged: bool) -> dict[str, Any]:
    timing, rate, unit = measured.timing, measured.rate, None
    share = None
    if measured.work is not None and rate is not None:
        unit = measured.work.unit + "/s"
        ceiling = {"FLOP/s": ceilings.matmul, "B/s": ceilings.copy}.get(unit)
        share = rate / ceiling if ceiling else None
    target, share_target = row.targets.get(name), row.shares.get(name)
    return {
        "ours_ms": median(timing.ours) * 1e3,
        "ours_best_ms": min(timing.ours) * 1e3,
        "peer_ms": median(timing.peer) * 1e3 if timing.peer else None,
        "peer_best_ms": min(timing.peer) * 1e3 if timing.peer else None,
        "rounds": len(timing.ours),
        "ratio": timing.ratio,
        "best_ratio": timing.best_ratio,
        "target": target,
        "met": _met(timing.ratio, target) if judged else None,
        "rate": rate,
        "unit": unit,
        "share": share,
        "share_target": share_target,
        "share_met": _met(share, share_target) if judged else None,
    }


def _met(got: float | None, target: float | None) -> bool | None:
    return None if got is None or target is None else got >= target


def document(
    rows: list[dict[str, Any]], grid: list[dict[str, Any]], ceilings: Ceilings, after: Ceilings, options: Options
) -> dict[str, Any]:
    """The whole run as JSON."""
    return {
        "schema": SCHEMA,
        **_where(),
        "options": asdict(options),
        "ceilings": asdict(ceilings),
        "ceilings_after": asdict(after),
        "rows": rows,
        "grid": grid,
    }


def methods_document(lines: list[Line], quick: bool) -> dict[str, Any]:
    """The comparison of the methods as JSON."""
    return {
        "schema": SCHEMA,
        **_where(),
        "options": {"quick": quick},
        "methods": [
            {
                "cell": line.cell,
                "sizes": dict(zip("BTd", line.sizes, strict=True)),
                "pass": line.which,
                "milliseconds": {name: s * 1e3 for name, s in line.seconds.items()},
                "chosen": line.chosen,
                "error": line.error,
                "first_call_seconds": line.first_call,
            }
            for line in lines
        ],
    }


def _where() -> dict[str, Any]:
    found = {"torch": torch.__version__, "python": platform.python_version(), **versions()}
    return {"machine": machine(), "versions": found}


def machine() -> dict[str, Any]:
    """The processor, how many threads PyTorch uses of it, and what our kernels are compiled for."""
    from ritornello.kernels.native import _library

    try:
        isa = _library.isa() if _library.available() else None
    except BackendError:
        isa = None
    return {"device": "cpu", "processor": _processor(), "threads": torch.get_num_threads(), "isa": isa}


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    if listed.exists():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def checkpoint_mean(values: Iterable[dict[str, Any]]) -> float | None:
    """The geometric mean of the ratios of all checkpoints, prefill and decoding alike; None where none was timed."""
    ratios = [p["ratio"] for v in values if v["op"] == OP for p in v["passes"].values() if p["ratio"] is not None]
    return geometric_mean(ratios) if ratios else None


# ---------------------------------------------------------------------------------------------------------- for people


def ceiling_lines(ceilings: Ceilings) -> list[str]:
    at = machine()
    return [
        f"{at['processor']}, {at['threads']} threads, kernels for {at['isa'] or 'none: they are not built'}",
        f"ceilings: float32 matrix product {ceilings.matmul / 1e9:.0f} GFLOP/s "
        f"({ceilings.matmul_allocated / 1e9:.0f} with its output allocated), "
        f"bfloat16 {ceilings.matmul_bf16 / 1e9:.0f}; copy {ceilings.copy / 1e9:.1f} GB/s",
    ]


def drift_lines(before: Ceilings, after: Ceilings) -> list[str]:
    """A warning where the machine was not the same at the end of the run: its shares then mean little."""
    moved = [name for name, rate in asdict(before).items() if abs(asdict(after)[name] / rate - 1) > DRIFT]
    if not moved:
        return []
    return [f"the machine was not quiet: {', '.join(moved)} changed by more than {DRIFT:.0%}; run it again"]


def lines(value: dict[str, Any]) -> list[str]:
    """A result, as `as_value` gives it: a heading and a line for each pass."""
    sizes = " ".join(f"{name}{size}" for name, size in value["sizes"].items())
    on = f", {value['backend']} backend" if value["backend"] else ""
    told = [f"{value['row']}  {sizes}{on}, beside {value['peer']}"]
    if value["note"]:
        told.append(f"  {value['note']}")
    if value["wrong"]:
        return [*told, f"  WRONG, and not timed: {value['wrong']}"]
    told += [_line(name, p) for name, p in value["passes"].items()]
    if value["memory"] is not None:
        target = "" if value["memory_target"] is None else f"  ≤ {value['memory_target']:.3g}"
        told.append(
            f"  {'memory at its peak':<18}  {value['memory']:9.2f} × inputs and outputs{target}"
            f"{_judgement(value['memory_met'])}"
        )
    return told


def _line(name: str, p: dict[str, Any]) -> str:
    cells = [f"  {name:<18}", f"{p['ours_ms']:9.2f} ms [{p['ours_best_ms']:.2f}]"]
    if p["ratio"] is not None:
        cells.append(f"peer {p['peer_ms']:9.2f} [{p['peer_best_ms']:.2f}]")
        cells.append(f"ratio {p['ratio']:6.2f} [{p['best_ratio']:.2f}]")
    if p["target"] is not None:
        cells.append(f"≥ {p['target']:.3g}{_judgement(p['met'])}")
    if p["share"] is not None:
        cells.append(f"{p['rate'] / 1e9:.1f} G{p['unit']}, {p['share']:.0%} of the ceiling")
    elif p["rate"] is not None:
        cells.append(f"{p['rate']:.0f} {p['unit']}, {1e3 / p['rate']:.3f} ms each")
    if p["share_target"] is not None:
        cells.append(f"≥ {p['share_target']:.0%}{_judgement(p['share_met'])}")
    return "  ".join(cells)


def _judgement(met: bool | None) -> str:
    return {True: " met", False: " NOT MET", None: ""}[met]


def grid_lines(values: Iterable[dict[str, Any]]) -> list[str]:
    """Of one row at random sizes: the worst ratio of each pass, and where."""
    values = list(values)
    told = []
    for name in dict.fromkeys(name for v in values for name in v["passes"]):
        timed = [v for v in values if v["passes"].get(name, {}).get("ratio") is not None]
        if not timed:
            continue
        worst = min(timed, key=lambda v: v["passes"][name]["ratio"])
        sizes = " ".join(f"{n}{size}" for n, size in worst["sizes"].items())
        told.append(
            f"  {name:<18}  worst ratio of {len(timed)} random shapes {worst['passes'][name]['ratio']:.2f}, at {sizes}"
        )
    wrong = [v for v in values if v["wrong"]]
    return told + [f"  WRONG, and not timed, at {v['sizes']}: {v['wrong']}" for v in wrong]
