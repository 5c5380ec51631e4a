"""Everything about the package is in pyproject.toml; here is the one step it cannot say: the C library.

It is optional. Without a compiler the installation succeeds and is pure Python, and the library says once, when it is
used, how to build what is missing.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

FOLDER = Path("ritornello/kernels/native")
# By path: importing the package would need torch, which the build environment does not have.
native = SimpleNamespace(**runpy.run_path(str(FOLDER / "build.py")))


class BuildWithLibrary(build_py):
    """The Python files, then the library beside them (in the source tree for an editable installation)."""

    def run(self):
        super().run()
        folder = FOLDER if self.editable_mode else Path(self.build_lib) / FOLDER
        try:
            self.library = str(native.build(folder / native.LIBRARY))
        except native.BuildError as error:
            self.library = None
            print(f"warning: the native CPU kernels were not built: {error}", file=sys.stderr)

    def get_outputs(self, include_bytecode=True):
        built = getattr(self, "library", None)
        return super().get_outputs(include_bytecode) + ([built] if built else [])


class PlatformWheel(bdist_wheel):
    """The library needs no Python headers: one wheel per platform serves every Python."""

    def get_tag(self):
        python, abi, tag = super().get_tag()
        return ("py3", "none", tag) if self.distribution.has_ext_modules() else (python, abi, tag)


class WithLibrary(Distribution):
    def has_ext_modules(self):
        return native.compiler() is not None


setup(distclass=WithLibrary, cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel})
