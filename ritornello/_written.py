"""What somebody wrote on top of the library: whether its methods can be called, and how its values read."""

from __future__ import annotations

import functools
import inspect
from types import FunctionType
from typing import Any

from torch import nn

from ritornello.errors import InputError
from ritornello.typing import Tensor, Tree

__all__ = ["check_methods", "describe", "initialised"]


def describe(tree: Tree, skipped: int = 0) -> str:
    """The nest as it would be written, without the first `skipped` dimensions."""
    if isinstance(tree, Tensor):
        return f"{tuple(tree.shape[skipped:])} {str(tree.dtype).removeprefix('torch.')}"
    if isinstance(tree, dict):
        return "{" + ", ".join(f"{k!r}: {describe(x, skipped)}" for k, x in tree.items()) + "}"
    if isinstance(tree, list | tuple):
        parts = ", ".join(describe(x, skipped) for x in tree) + "," * (type(tree) is tuple and len(tree) == 1)
        name = "" if type(tree) in (list, tuple) else type(tree).__name__
        return name + (f"[{parts}]" if isinstance(tree, list) else f"({parts})")
    return repr(tree)


def check_methods(cls: type, base: type) -> None:
    """Refuse a class, where it is made, whose methods cannot be called as those of `base` are.

    Raises:
        InputError: a method of `base` was written anew and takes other arguments.
    """
    for name, theirs in vars(base).items():
        own = vars(cls).get(name)
        function = own.__func__ if isinstance(own, staticmethod | classmethod) else own
        if name[0] == "_" or name == "forward":  # which torch.nn leaves to whoever writes it
            continue
        if not (isinstance(theirs, FunctionType) and isinstance(function, FunctionType)):
            continue
        wanted, got = (inspect.signature(f, follow_wrapped=False) for f in (theirs, function))
        given = [p for p in wanted.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        try:
            got.bind(*given[isinstance(own, staticmethod) :])
        except TypeError as error:
            raise InputError(
                f"`{name}` of {cls.__name__} is written as {_plain(name, got)}; wanted {_plain(name, wanted)}, as "
                "it is called. Give it these arguments."
            ) from error


def _plain(name: str, signature: inspect.Signature) -> str:
    """A signature without its annotations."""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return f"{name}{inspect.Signature(bare)}"


def initialised(cls: type[nn.Module], call: str) -> None:
    """Let an ``__init__`` that a class writes say so where it forgets that of its base, written as `call`."""
    init = vars(cls).get("__init__")
    if not isinstance(init, FunctionType):
        return
    sentence = (
        f"`__init__` of {cls.__name__} does not call super().__init__ before all else. Make it begin with {call}."
    )

    @functools.wraps(init)
    def begun(self: nn.Module, *args: Any, **options: Any) -> None:
        try:
            init(self, *args, **options)
        except AttributeError as error:
            # So PyTorch refuses a parameter, a buffer or a module: of this one, or of another that is made here.
            if "_parameters" in vars(self) or "before Module.__init__()" not in str(error):
                raise
            raise InputError(sentence) from error
        if "_parameters" not in vars(self) and type(self).__init__ is begun:
            raise InputError(sentence)

    cls.__init__ = begun  # type: ignore[method-assign]
