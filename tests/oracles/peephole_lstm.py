"""The LSTM of arXiv:1503.04069, section 2, and its eight variants, section 3 and appendix A: each gate written out, in
float64."""

from __future__ import annotations

import numpy as np

from tests.oracles.numpy_parts import blocks, rows, sigmoid, weights

VARIANTS = {
    "plain": {},
    "heads": {"heads": 4},
    **{name: {"variant": name} for name in ("nig", "nfg", "nog", "niaf", "noaf", "cifg", "np")},
    "fgr": {"variant": "fgr", "heads": 2},
}


def forward(layer, x):
    w, variant, width = weights(layer), layer.cell.variant, layer.width
    order = {"nig": "fzo", "nfg": "izo", "nog": "ifz", "cifg": "izo"}.get(variant, "ifzo")
    W, b = (dict(zip(order, np.split(w[f"cell.{n}"], len(order)), strict=True)) for n in ("weight_ih", "bias"))
    R = {gate: blocks(m) for gate, m in zip(order, w["cell.weight_hh"], strict=True)}
    p = dict.fromkeys("ifo", np.zeros(width))
    if variant != "np":
        p |= dict(zip(order.replace("z", ""), w["cell.peephole"], strict=True))

    def row(x):
        y, c, out = np.zeros(width), np.zeros(width), []
        old = {gate: np.zeros(width) for gate in "ifo"}
        for now in x:

            def total(gate, now=now, y=y, old=old):
                found = W[gate] @ now + R[gate] @ y + b[gate]
                if variant == "fgr" and gate != "z":
                    for source, name in enumerate("ifo"):
                        found = found + blocks(w["cell.weight_gates"]["ifo".index(gate), source]) @ old[name]
                return found

            z = total("z") if variant == "niaf" else np.tanh(total("z"))
            i = 1.0 if variant == "nig" else sigmoid(total("i") + p["i"] * c)
            if variant == "cifg":
                f = 1 - i
            else:
                f = 1.0 if variant == "nfg" else sigmoid(total("f") + p["f"] * c)
            c = z * i + c * f
            o = 1.0 if variant == "nog" else sigmoid(total("o") + p["o"] * c)
            y = (c if variant == "noaf" else np.tanh(c)) * o
            old = {"i": i, "f": f, "o": o}
            out.append(y)
        return np.stack(out)

    return rows(row, x)
