"""Which recurrence can do what: layers on tasks with equal budgets, resumable, with honest statistics."""

from __future__ import annotations

from ritornello.lab.compare.budget import Budget
from ritornello.lab.compare.folder import Folder
from ritornello.lab.compare.means import Mean, mean_of
from ritornello.lab.compare.plan import Plan
from ritornello.lab.compare.run import compare, default_workers

__all__ = ["Budget", "Folder", "Mean", "Plan", "compare", "default_workers", "mean_of"]
