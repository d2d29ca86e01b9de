"""What was drawn for a copy, in words that JSON holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

_MOST = 32
"""Numbers of one parameter that are written out; fields and noise have one a pixel, and follow from the key."""
_NOT_DRAWN = frozenset({"shape", "cols", "rows", "bbox_shift", "create_fn", "objects"})


def drawn_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Give the drawn parameters of one step as JSON values; of an array with over 32 numbers only its shape."""
    return {name: _plain(value) for name, value in sorted(parameters.items()) if name not in _NOT_DRAWN and _told(value)}


def _told(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str, np.generic, np.ndarray, list, tuple, dict))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist() if value.size <= _MOST else {"shape": list(value.shape)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value if _told(item)] if len(value) <= _MOST else {"shape": [len(value)]}
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items() if _told(item)}
    return value
