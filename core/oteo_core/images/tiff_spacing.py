"""The size of a TIFF's pixels, where the file gives it in a unit of length (TIFF 6.0, section 8; OME-TIFF; ImageJ).

Inches are not believed: they are a printer's resolution (72, 300) in nearly every file that has them.
"""

from __future__ import annotations

import io
import math
import re

import tifffile

_MILLIMETRES = {"mm": 1.0, "millimeter": 1.0, "cm": 10.0, "centimeter": 10.0, "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "\\u00b5m": 1e-3}
_MILLIMETRES |= {"micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3, "nm": 1e-6, "nanometer": 1e-6}
_CENTIMETRE = 3
_OME_SIZES = re.compile(r'PhysicalSize([XY])(Unit)?="([^"]{1,40})"')


def spacing(data: bytes) -> tuple[float, ...]:
    """Give width and height of the first page's pixels in mm; () where the file does not say."""
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return page_spacing(file.pages.first)
    except Exception:  # noqa: BLE001 (a hostile file may break a parser anywhere; what is wrong with it is said where its pixels are read)
        return ()


def page_spacing(page: tifffile.TiffPage) -> tuple[float, ...]:
    """Give width and height of a page's pixels in mm; () where it does not say."""
    text = str(page.description or "")
    if "<OME" in text[:2000]:
        found = {axis + kind: value for axis, kind, value in _OME_SIZES.findall(text[:100_000])}
        return _checked(*(_number(found.get(axis, "")) * _unit(found.get(axis + "Unit", "µm")) for axis in "XY"))
    across, down = _per_unit(page, "XResolution"), _per_unit(page, "YResolution")
    if not across or not down:
        return ()
    if text.startswith("ImageJ="):
        lines = dict(line.split("=", 1) for line in text[:10_000].splitlines() if "=" in line)
        return _checked(_unit(lines.get("unit", "")) / across, _unit(lines.get("unit", "")) / down)
    unit = page.tags.get("ResolutionUnit")
    if unit is None or int(unit.value) != _CENTIMETRE:
        return ()
    return _checked(10.0 / across, 10.0 / down)


def _per_unit(page: tifffile.TiffPage, name: str) -> float:
    tag = page.tags.get(name)
    value = getattr(tag, "value", None)
    return value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else 0.0


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _unit(text: str) -> float:
    return _MILLIMETRES.get(text.strip().lower(), 0.0)


def _checked(width: float, height: float) -> tuple[float, ...]:
    return (width, height) if all(math.isfinite(value) and value > 0 for value in (width, height)) else ()
