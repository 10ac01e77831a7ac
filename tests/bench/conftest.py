"""The scripts of bench/transfer as modules."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDERS = [str(REPOSITORY / "bench" / "transfer"), str(REPOSITORY / "bench")]


@pytest.fixture(scope="module")
def bench():
    """The scripts as modules; they import each other by name, as scripts in one folder do."""
    before = set(sys.modules)
    sys.path[:0] = FOLDERS
    names = ("plan", "overlap", "ledger", "qa", "summarise", "run", "stacked", "classify", "workbench")
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    sys.path[:] = [path for path in sys.path if path not in FOLDERS]
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and sys.modules[name].__file__.startswith(tuple(FOLDERS)):
            del sys.modules[name]
