"""The gated linear unit: the gate times its logistic function, times the other half."""

from __future__ import annotations

import numpy as np


def oracle(gate, up):
    return gate / (1 + np.exp(-gate)) * up, ()
