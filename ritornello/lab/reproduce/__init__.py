"""Published claims about recurrences, tried again in small runs."""

from __future__ import annotations

from ritornello.lab.reproduce.claim import Claim, Finding, Trial
from ritornello.lab.reproduce.claims import CLAIMS, choose
from ritornello.lab.reproduce.run import reproduce

__all__ = ["CLAIMS", "Claim", "Finding", "Trial", "choose", "reproduce"]
