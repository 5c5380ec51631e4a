"""What a model does while it reads: implicit attention, memory, eigenvalues, gates, surprise; arrays and pictures.

found = look(model, ids)                        # ids (1, T)
found.layers[0].attention                       # (H, T, T)
draw(found, folder, WHAT)                       # PNG files
"""

from __future__ import annotations

from ritornello.lab.look.capture import Captured, Solved, recording
from ritornello.lab.look.draw import draw
from ritornello.lab.look.linear import eigenvalues, gates, implicit_attention, influence, state_norms
from ritornello.lab.look.nonlinear import Path
from ritornello.lab.look.view import LONGEST, WHAT, Look, View, horizon, horizon_of_weights, look, surprise, view

__all__ = [
    "LONGEST",
    "WHAT",
    "Captured",
    "Look",
    "Path",
    "Solved",
    "View",
    "draw",
    "eigenvalues",
    "gates",
    "horizon",
    "horizon_of_weights",
    "implicit_attention",
    "influence",
    "look",
    "recording",
    "state_norms",
    "surprise",
    "view",
]
