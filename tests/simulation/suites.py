"""Runs the tests of a port suite over other stores."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any


def borrowed_from(suite: ModuleType) -> dict[str, Callable[..., Any]]:
    """The tests of a module that need no more than its `world`: what each proves of one store, it proves of another."""
    return {
        name: test
        for name, test in vars(suite).items()
        if name.startswith("test_") and "world" in (needs := inspect.signature(test).parameters) and len(needs) <= 3
        if "connect_as" not in needs
    }
