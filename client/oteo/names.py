"""Resource names, sources and enums as a person writes them."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from oteo.errors import OteoApiError


def resource(collection: str, name: str) -> str:
    """Give the full resource name of a short or full one: ``("datasets", "x")`` gives ``datasets/x``."""
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def source_uri(source: str | os.PathLike[str]) -> str:
    """Give what the service is told of a source: URIs and names of public datasets as they are, local paths made absolute."""
    text = os.fspath(source)
    return text if "://" in text or text.startswith(("medmnist:", "torchvision:")) else str(Path(text).expanduser().absolute())


def enum_name(enum: Any, prefix: str, value: str | None, field: str) -> str:
    """Give an enum's full name of a short one such as ``"pascal-voc"``; None or empty: the unspecified one.

    Raises
    ------
    OteoApiError
        INVALID_ARGUMENT, reason UNKNOWN_VALUE: there is none of that name; the message lists those that there are.
    """
    full = prefix + (value or "unspecified").upper().replace("-", "_")
    if full not in enum.keys():  # noqa: SIM118 - an enum wrapper, not a mapping
        known = ", ".join(name.removeprefix(prefix).lower().replace("_", "-") for name in enum.keys() if not name.endswith("_UNSPECIFIED"))  # noqa: SIM118
        raise OteoApiError("INVALID_ARGUMENT", f"{value!r} is not one of: {known}", reason="UNKNOWN_VALUE", field=field)
    return full


def slug(text: str, default: str = "data") -> str:
    """Give an id made from any text: lower-case letters, digits and hyphens, beginning with a letter, at most 57 characters."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    base = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if not base or not base[0].isalpha():
        base = f"{default}-{base}".strip("-")
    return base[:57].strip("-")
