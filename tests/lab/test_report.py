"""The report: it tells what is in the records, needs no network, and works in a browser."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from ritornello import tasks
from ritornello.lab.compare import Folder, Plan
from ritornello.lab.compare.contender import family
from ritornello.lab.report import Summary, charts, html, svg, write_report
from ritornello.lab.report.svg import Axis, Series
from tests.lab.comparisons import Echo, records

LAYERS = ("attention", "gated_delta_net", "delta_net:negative_eigenvalues=true", "min_gru")
VOID = {"meta", "link", "br", "wbr", "hr", "img", "input"}


@pytest.fixture(autouse=True)
def echo(monkeypatch):
    monkeypatch.setitem(tasks.catalogue.__globals__["_tasks"], "echo", Echo)


def report(path: Path, missing: tuple[str, ...] = (), seeds: int = 3) -> dict[str, str]:
    """The texts of a report, by name."""
    plan = Plan.of(LAYERS, ["echo", "parity"], "20s", seeds=seeds)
    folder = Folder.open(path, plan, "ritornello compare --layers <all>")
    written = write_report(folder, records(plan, missing))
    return {p.name: p.read_text(encoding="utf-8") for p in written}


class Checker(HTMLParser):
    """Every element is closed, and in order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag


def test_the_page_is_whole_and_needs_no_network(tmp_path):
    page = report(tmp_path)["report.html"]
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert {"table", "svg", "style", "script", "figure"} <= {tag for tag, _ in checker.seen}
    assert not [tag for tag, attrs in checker.seen if "src" in attrs or tag in ("link", "iframe", "img")]
    assert not re.search(r"https?://|@import|url\(", page)
    assert "ritornello compare --layers &lt;all&gt;" in page, "what was typed is text"
    assert "Echo &lt;of&gt; a token" in page
    assert "prefers-color-scheme: dark" in page
    assert page.count("<figure>") == 3 * 2 + 2


def test_the_heat_map_tells_the_scores(tmp_path):
    page = report(tmp_path)["report.html"]
    cells = re.findall(r'<td class="heat[^>]*data-trained="([^"]*)" data-longest="([^"]*)" data-mean="([^"]*)"', page)
    assert len(cells) == len(LAYERS) * 2
    text, share, note = cells[0][0].split("|")
    best = 0.25 + 0.75 * 0.989  # three seeds: 0.999, 0.989, 0.979 of the way
    assert (text, share) == (f"{100 * best:.1f}", "0.989")
    assert note == "± 1.9", "0.75 · 4.303 · 0.01 / √3"
    assert cells[-1][0].startswith("50.0|0.000|"), "the last layer is at chance on parity"


def test_an_interval_is_no_wider_than_all_there_is(tmp_path):
    plan = Plan.of(["attention"], ["parity"], "20s", seeds=2)
    found = records(plan)
    for record in (r for r in found if r["kind"] == "run"):
        record["scores"] = dict.fromkeys(record["scores"], 0.5 + 0.5 * record["seed"])
    texts = {p.name: p.read_text(encoding="utf-8") for p in write_report(Folder.open(tmp_path, plan, ""), found)}
    assert "75.0|0.500|± 100.0" in texts["report.html"], "two seeds, at chance and right everywhere"
    assert "0.750 ± 1.000" in texts["report.md"]


def test_findings_tell_leaders_and_losers(tmp_path):
    plan = Plan.of(LAYERS, ["echo"], "20s")
    summary = Summary(plan, records(plan))
    assert summary.layers == list(LAYERS), "the best first"
    assert [cell.layer for cell in summary.leaders("echo")] == ["attention"]
    text = report(tmp_path)["report.md"]
    assert "attention leads with 99.2 % at length 6" in text
    assert "1 of 4 solves it (95 % of the way from chance), 1 stays at chance." in text


def test_where_nothing_is_learnt_nobody_leads(tmp_path):
    plan = Plan.of(LAYERS, ["parity"], "20s")
    found = records(plan)
    for record in found:
        if record["kind"] == "run":
            record["scores"] = dict.fromkeys(record["scores"], 0.51)
    text = write_report(Folder.open(tmp_path, plan, ""), found)[1].read_text(encoding="utf-8")
    assert "At length 40 none of 4 layers leaves chance within this budget." in text
    assert "leads" not in text


def test_a_table_has_one_unit_for_a_score_and_its_interval(tmp_path):
    page = report(tmp_path)["report.html"]
    assert re.search(r'<td data-v="0\.99\d*">99\.2</td><td data-v="0\.018\d*">1\.9</td>', page)
    assert '<td data-v="0.875">87.5</td>' in page, "published, of the same measure"
    assert '<td data-v="1.0"><small>scaled accuracy</small> 1</td>' in page


def test_what_failed_is_told(tmp_path):
    texts = report(tmp_path, missing=("min_gru",))
    assert "the worker &lt;died&gt;" in texts["report.html"]
    assert "the worker <died>" in texts["report.md"]
    assert "18 of 24" in texts["report.html"]
    assert '<td class="none"' in texts["report.html"]


def test_a_failure_that_was_mended_is_not_told():
    plan = Plan.of(LAYERS, ["echo"], "20s")
    found = records(plan, missing=("min_gru",)) + records(plan)
    assert Summary(plan, found).failures == []


def test_one_seed_has_no_interval(tmp_path):
    texts = report(tmp_path, seeds=1)
    assert "±" not in re.sub(r"delta_net ±", "", texts["report.md"].partition("## Scores")[2].partition("### ")[2])
    assert 'class="band"' not in texts["report.html"]


def test_a_report_of_nothing_yet(tmp_path):
    plan = Plan.of(LAYERS, ["echo"], "20s")
    folder = Folder.open(tmp_path / "a", plan, "")
    page = write_report(folder, [])[0].read_text(encoding="utf-8")
    assert "No run is finished yet." in page


def test_csv_and_markdown_have_every_figure(tmp_path):
    texts = report(tmp_path)
    rows = list(csv.DictReader(io.StringIO(texts["scores.csv"])))
    assert len(rows) == len(LAYERS) * 3 * (2 + 3), "seeds × lengths of both tasks"
    assert {row["layer"] for row in rows} == set(LAYERS)
    assert float(rows[0]["score"]) == pytest.approx(0.25 + 0.75 * 0.999)
    assert "| attention | 0.992 ± 0.019 | 0.992 ± 0.019 |" in texts["report.md"]
    assert "0.875 (accuracy)" in texts["report.md"], "the published figure beside ours"
    assert "1 (scaled accuracy)" in texts["report.md"], "of the signed DeltaNet"


def test_frontier():
    found = [(4.0, 0.5), (1.0, 0.2), (2.0, 0.1), (8.0, 0.5), (16.0, 0.9)]
    assert charts._frontier(found) == [(1.0, 0.2), (4.0, 0.5), (16.0, 0.9)]


def test_axes():
    assert Axis.over("", [0.0, 0.93], zero=True).ticks == (0.0, 0.2, 0.4, 0.6000000000000001, 0.8)
    log = Axis.over("", [100, 90_000], log=True)
    assert log.ticks == (100, 1000, 10_000)
    assert (log.at(log.low), log.at(log.high)) == pytest.approx((0, 1))
    assert Axis.over("", [3.0, 3.0]).at(3.0) == 0
    assert len(Axis.over("", [40, 160], log=True).ticks) == 2
    assert [svg.short(v) for v in (0.25, 40, 2048, 16384, 2e6)] == ["0.25", "40", "2048", "16.4k", "2M"]


def test_names_beside_lines_do_not_meet():
    lines = [Series(str(i), f"line {i}", 0, [(0, i / 100), (1, i / 100)]) for i in range(30)]
    drawn = svg.lines(Axis("x", 0, 1), Axis("y", 0, 1), lines)
    shown = sorted(float(y) for y in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)"', drawn))
    assert len(shown) > 3
    assert min(b - a for a, b in pairwise(shown)) >= svg.LABEL_HEIGHT - 0.2
    assert drawn.count("label hidden") == 30 - len(shown)


def test_a_name_makes_room_for_one_that_ends_near_it():
    """Of forty lines that end at two heights the best are named, also those that end alike."""
    lines = [Series(str(i), f"line {i}", 0, [(0, 0.5), (1, 0.9 if i < 3 else 0.1)]) for i in range(40)]
    drawn = svg.lines(Axis("x", 0, 1), Axis("y", 0, 1), lines)
    shown = re.findall(r'class="label" [^>]*>([^<]*)<', drawn)
    assert {"line 0", "line 1", "line 2"} <= set(shown)
    quiet = re.findall(r'class="series f0 quiet" data-layer="(\d+)"', drawn)
    assert len(quiet) == 40 - len(shown), "lines without a name are pale"
    assert not {"0", "1", "2"} & set(quiet)


def test_colours_are_for_the_families_of_many_layers():
    """Ten families and eight colours: those of a single layer share the last one, and one chip of the legend."""
    plan = Plan.of(["all"], ["echo"], "20s")
    summary = Summary(plan, records(plan))
    counts = [sum(family(layer) == name for layer in plan.layers) for name in summary.families]
    assert counts == sorted(counts, reverse=True)
    assert len(counts) > charts.HUES
    legend = html._legend(summary)
    assert legend.count('class="swatch"') == charts.HUES
    assert ", ".join(summary.families[charts.HUES - 1 :]) in legend


def test_few_names_are_all_shown_and_long_ones_cut():
    long = "gla + attention:window=16"
    lines = [Series(str(i), long if i == 1 else f"line {i}", 0, [(0, 0.5), (1, 0.98)]) for i in range(12)]
    drawn = svg.lines(Axis("x", 0, 1), Axis("y", 0, 1), lines)
    shown = sorted(float(y) for y in re.findall(r'class="label" x="[\d.]+" y="([\d.]+)"', drawn))
    assert len(shown) == 12
    assert min(b - a for a, b in pairwise(shown)) >= svg.LABEL_HEIGHT - 0.2
    assert min(shown) > svg.TOP
    assert f">{long[:17]}…</text>" in drawn
    assert f"<title>{long}" in drawn


# ------------------------------------------------------------------------------------------------------- in a browser

PROBE = """
<script>
const told = [];
window.addEventListener("error", e => told.push("ERROR " + e.message));
window.addEventListener("load", () => {
  const first = table => table.tBodies[0].rows[0].cells[0].textContent;
  const [map] = document.querySelectorAll("table.sortable");
  map.tHead.rows[0].cells[0].querySelector("button").click();
  told.push("down " + first(map));
  map.tHead.rows[0].cells[0].querySelector("button").click();
  told.push("up " + first(map));
  const before = document.querySelector("td.heat").textContent;
  document.querySelector("[data-view=mean]").click();
  told.push("view " + (document.querySelector("td.heat").textContent !== before));
  document.querySelector("svg .series").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  told.push("lit " + document.querySelectorAll(".lit").length);
  document.querySelector("[data-hue]").dispatchEvent(new PointerEvent("pointerover", {bubbles: true}));
  told.push("family " + new Set([...document.querySelectorAll(".lit")].map(e => e.dataset.layer)).size);
  told.push("wide " + (document.documentElement.scrollWidth > innerWidth));
  told.push("ink " + getComputedStyle(document.body).color);
  document.title = told.join("; ");
});
</script>
"""


def browse(page: Path, *options: str) -> str:
    """What the probe tells of a page in headless Chromium."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("Chromium is not installed")
    common = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}"]
    command = [chromium, *common, *options, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    return found[1]


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "ink"), [("1", "rgb(29, 34, 48)"), ("0", "rgb(232, 233, 238)")])
def test_in_chromium(tmp_path, scheme, ink):
    page = tmp_path / "probed.html"
    page.write_text(PROBE.join(report(tmp_path / "a")["report.html"].split("</head>")), encoding="utf-8")
    told = browse(page, "--window-size=500,900", f"--blink-settings=preferredColorScheme={scheme}")
    assert "ERROR" not in told
    assert "down min_gru; up attention; view true" in told
    assert re.search(r"lit [1-9]", told)
    assert "family 2;" in told, "both delta rules"
    assert "wide false" in told, "a phone need not scroll sideways"
    assert f"ink {ink}" in told
