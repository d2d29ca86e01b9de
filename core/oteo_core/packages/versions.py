"""Versions of what made a package."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterable


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Give the versions of Python and of these libraries; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in libraries:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
