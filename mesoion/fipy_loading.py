"""FiPy, imported as a library should be."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from types import ModuleType


def load_fipy() -> ModuleType:
    """The module `fipy`, imported as a library should be.

    FiPy parses the command line and chooses its solvers from the environment when it is imported, and it asks numpy
    for a deprecated name: during that import alone the command line is empty, the solvers are SciPy's unless
    FIPY_SOLVERS says otherwise, and warnings are off.
    """
    if "fipy" in sys.modules:
        return sys.modules["fipy"]
    argv, solvers = sys.argv, os.environ.get("FIPY_SOLVERS")
    try:
        sys.argv = argv[:1]
        os.environ.setdefault("FIPY_SOLVERS", "scipy")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("fipy")
    finally:
        sys.argv = argv
        if solvers is None:
            os.environ.pop("FIPY_SOLVERS", None)
