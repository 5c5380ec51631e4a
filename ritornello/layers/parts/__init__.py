"""What several layers share."""

from __future__ import annotations
