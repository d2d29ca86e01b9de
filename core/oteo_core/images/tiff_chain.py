"""The chain of directories of a TIFF or BigTIFF file (TIFF 6.0, section 2), followed without reading them."""

from __future__ import annotations

import struct

from oteo_core.images.header import unreadable
from oteo_core.images.limits import too_large

_MOST = 1_000_000


def check_chain(data: bytes) -> None:
    """Refuse a file whose directories lead back to one before: it would be read as pages that are not there.

    A link beyond the end of the file ends the chain; what is missing then is said where the page is read.

    Raises
    ------
    InvalidArgument
        UNREADABLE_IMAGE; IMAGE_TOO_LARGE for more than a million directories.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = len(data) >= 16 and struct.unpack_from(order + "H", data, 2)[0] == 43
    count_of, link_of = (
        (struct.Struct(order + "Q"), struct.Struct(order + "Q")) if big else (struct.Struct(order + "H"), struct.Struct(order + "I"))
    )
    entry = 20 if big else 12
    if len(data) < 16:
        return
    (at,) = link_of.unpack_from(data, 8 if big else 4)
    seen: set[int] = set()
    while at and at + count_of.size <= len(data):
        if at in seen:
            raise unreadable(f"the TIFF's directories lead in a circle: the one at byte {at} comes twice")
        if len(seen) >= _MOST:
            raise too_large(f"more than {_MOST} directories")
        seen.add(at)
        (entries,) = count_of.unpack_from(data, at)
        link = at + count_of.size + entries * entry
        if link + link_of.size > len(data):
            return
        (at,) = link_of.unpack_from(data, link)
