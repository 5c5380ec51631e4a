"""The text coloured by surprise, as one HTML page that needs no network."""

from __future__ import annotations

import math
from html import escape

from ritornello.lab.look.read import marks, read_off
from ritornello.lab.look.view import Look

__all__ = ["surprise_page"]

MOST = 12.0
"""Bits from which a colour is full."""

LISTED, AROUND = 12, 24
"""Tokens that are listed, and letters of the text that are shown before each."""

STYLE = """
:root { color-scheme: light dark; --page: #fbfaf7; --card: #fff; --ink: #1d2230; --soft: #606779; --line: #e4e3de;
  --heat: #e8503a }
@media (prefers-color-scheme: dark) { :root { --page: #12141a; --card: #1a1d26; --ink: #e8e9ee; --soft: #9aa1b3;
  --line: #2b2f3b; --heat: #d8432f } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif }
main { max-width: 860px; margin: 0 auto; padding: 32px 16px 60px }
h1 { font-size: 24px; margin: 0 0 4px } h2 { font-size: 17px; margin: 36px 0 6px }
p { margin: 4px 0 14px; color: var(--soft) }
.text, code { font: 15px/1.9 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace }
.text { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px;
  white-space: pre-wrap; overflow-wrap: anywhere }
.t { background: color-mix(in oklab, var(--heat) calc(var(--s) * 100%), transparent); border-radius: 3px;
  padding: 2px 0; cursor: default }
.t:hover { outline: 2px solid var(--ink) }
.scale { display: flex; align-items: center; gap: 8px; color: var(--soft); font-size: 13px; margin: 0 0 10px }
.scale i { width: 180px; height: 10px; border-radius: 5px; border: 1px solid var(--line);
  background: linear-gradient(to right, transparent, var(--heat)) }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th { text-align: left; color: var(--soft); font-weight: 600 } th, td { padding: 3px 16px 3px 0 }
td:last-child { overflow-wrap: anywhere } td .soft { color: var(--soft) }
"""


def surprise_page(found: Look) -> str:
    """The whole page: the text, each token on the colour of −log₂ p, its bits where it is pointed at; and a table of
    the tokens that were seen coming least."""
    pieces = list(read_off(found))
    known = [bits for _, bits in pieces if not math.isnan(bits)]
    mean = sum(known) / max(1, int((~found.surprise.isnan()).sum()))
    text = "".join(_token(piece, bits) for piece, bits in pieces)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Ritornello: surprise</title>'
        f"<style>{STYLE}</style></head>\n<body><main><h1>Surprise</h1>"
        f"<p>−log₂ p of each token given those before it: {mean:.2f} bits a token over {len(found.pieces)} tokens, at "
        f"most {max(known, default=0.0):.2f}. Point at a token for its own.</p>"
        f'<div class="scale">0<i></i>{MOST:g} bits and more</div><div class="text">{text}</div>'
        f"<h2>Seen coming least</h2>{_table(pieces)}</main></body></html>\n"
    )


def _token(piece: str, bits: float) -> str:
    shown = escape(_shown(piece))
    if math.isnan(bits):
        return f'<span title="nothing came before it">{shown}</span>' + "\n" * piece.count("\n")
    share = min(1.0, bits / MOST)
    return f'<span class="t" style="--s:{share:.3f}" title="{bits:.2f} bits">{shown}</span>' + "\n" * piece.count("\n")


def _shown(piece: str) -> str:
    """With spaces that are spaces, where lines may break."""
    return " ".join(marks(piece.split(" ")))


def _table(pieces: list[tuple[str, float]]) -> str:
    order = sorted((i for i, (_, b) in enumerate(pieces) if not math.isnan(b)), key=lambda i: -pieces[i][1])
    rows = []
    for i in order[:LISTED]:
        before = "".join(marks([piece for piece, _ in pieces[max(0, i - AROUND) : i]]))[-AROUND:]
        where = f'<span class="soft">{escape(before)}</span><b>{escape(marks([pieces[i][0]])[0])}</b>'
        rows.append(f"<tr><td>{pieces[i][1]:.2f}</td><td>{i}</td><td><code>{where}</code></td></tr>")
    return f"<table><tr><th>bits</th><th>place</th><th>token</th></tr>{''.join(rows)}</table>"
