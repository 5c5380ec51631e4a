"""The tasks by name."""

from __future__ import annotations

from ritornello.errors import InputError, nearest
from ritornello.tasks.base import Task

__all__ = ["catalogue", "find", "register"]

_tasks: dict[str, type[Task]] = {}


def register(cls: type[Task]) -> type[Task]:
    """Put a task of one's own into the catalogue, under its `name`.

    Raises:
        InputError: not a Task, or a name that another class has.
    """
    if not (isinstance(cls, type) and issubclass(cls, Task)):
        raise InputError(f"`cls` of register is {cls!r}; wanted a subclass of ritornello.tasks.Task.")
    if _tasks.get(cls.name, cls) is not cls:
        raise InputError(f"The name {cls.name!r} belongs to {_tasks[cls.name].__name__}. Choose another one.")
    _tasks[cls.name] = cls
    return cls


def catalogue() -> dict[str, type[Task]]:
    """Name → class, of every task, sorted by name."""
    return dict(sorted(_tasks.items()))


def find(name: str) -> type[Task]:
    """The task of that name.

    Raises:
        InputError: there is none; the nearest names are offered.
    """
    if name not in _tasks:
        raise InputError(f"There is no task {name!r}. {nearest(name, _tasks)}")
    return _tasks[name]
