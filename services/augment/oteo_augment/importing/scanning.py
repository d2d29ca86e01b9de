"""Reading, hashing, decoding and copying files: the part of an import that touches every byte, a shard at a time.

A shard's answer is one Arrow table, small beside the files, so that it can be kept as a checkpoint: an import that was killed goes on with the
shards that are left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_augment.importing.frames import look_at_mask, scan_frames, scan_masks, store_mask
from oteo_augment.importing.maskfiles import made_of, numbers_of
from oteo_augment.importing.scanned import IMAGE, MASK, Scanned, to_bytes
from oteo_augment.importing.source import SourceFile
from oteo_augment.importing.targets import ScanPlan
from oteo_core.datasets import media_path
from oteo_core.datasets.staging import Target
from oteo_core.errors import InvalidArgument, OteoError
from oteo_core.images import ImageLimits, decode, perceptual_hash, pixel_digest, significant_bits
from oteo_core.images.sequences import ENDINGS, Opened, open_image
from oteo_core.images.sequences.opening import kind_of

_BLOCK_FILES = 32
_BLOCK_BYTES = 2 << 20
"""Files, and bytes encoded or decoded, that go through a step together: about what a core's own cache holds."""
_NOTHING: NDArray[Any] = np.empty(0, np.uint8)


def scan_shard(plan: ScanPlan, paths: Sequence[str], masks: Sequence[str], check: Callable[[], None] | None = None) -> bytes:
    """Scan images and masks; give a table of `Scanned` rows as Arrow's stream format.

    Raises
    ------
    OteoError
        DISK_FULL or READ_ONLY_TARGET where copies cannot be written; what is wrong with a file itself is in its row.
    """
    # A shard has a core, not all of them.
    cv2.setNumThreads(1)
    target = plan.target()
    rows: list[Scanned] = []
    further: dict[int, list[Scanned]] = {}
    for kind, group in ((IMAGE, paths), (MASK, masks)):
        block: list[tuple[Scanned, bytes]] = []
        size = 0
        for path in group:
            row = Scanned(path, kind)
            rows.append(row)
            data = _read(plan, row)
            if data is not None:
                block.append((row, data))
                size += len(data)
            if len(block) >= _BLOCK_FILES or size >= _BLOCK_BYTES:
                if check is not None:
                    check()
                _scan_block(plan, target, block, further, check)
                block, size = [], 0
        if check is not None:
            check()
        _scan_block(plan, target, block, further, check)
    return to_bytes([each for row in rows for each in (row, *further.get(id(row), ()))])


def shard_key(files: Sequence[SourceFile], masks: Sequence[SourceFile]) -> str:
    """Give a name for a shard that changes when any of its files does."""
    digest = hashlib.sha256()
    for kind, group in ((IMAGE, files), (MASK, masks)):
        for file in group:
            digest.update(f"{kind}\0{file.path}\0{file.size}\0{file.version}\n".encode())
    return digest.hexdigest()[:32]


def _read(plan: ScanPlan, row: Scanned) -> bytes | None:
    """Read a file; None where that fails, which its row then says. Of a folder of masks nothing: its files are read one by one."""
    if row.path.endswith("/"):
        return b""
    row.dicom = row.path.lower().endswith(ENDINGS["dicom"])
    try:
        data = plan.source.read(row.path, plan.limits.max_bytes)
    except InvalidArgument as exc:
        row.code, row.message = exc.reason, exc.message
        return None
    except (OSError, OteoError) as exc:
        # The system's own words without the path, which the finding has beside it.
        row.code, row.message = (
            "UNREADABLE_FILE",
            f"the file cannot be read: {getattr(exc, 'strerror', None) or type(exc).__name__ if isinstance(exc, OSError) else exc}",
        )
        return None
    row.size = len(data)
    return data


def _scan_block(
    plan: ScanPlan,
    target: Target,
    block: Sequence[tuple[Scanned, bytes]],
    further: dict[int, list[Scanned]],
    check: Callable[[], None] | None,
) -> None:
    """Take some files through all steps, one step after the other; put the rows of second and later frames into `further`.

    Each step's code and tables stay in the processor's caches while it goes through the block; taking one file through all steps before the next
    was measured to cost nearly twice as much for small images. Decoded pixels are let go as soon as they add up.
    """
    for row, data in block:
        row.sha256 = hashlib.sha256(data).hexdigest()
    decoded: list[tuple[Scanned, bytes, NDArray[Any]]] = []
    held = 0
    for row, data in block:
        try:
            if row.kind == MASK and made_of(plan, row.path):
                store_mask(row, numbers_of(plan, row, data), target)
                continue
            row.dicom = plan.by_frame and kind_of(data, row.path) == "dicom"
            pixels = _NOTHING
            if row.kind == MASK:
                if plan.by_frame and (kind_of(data, row.path) or look_at_mask(row, data, plan.limits) > 1):
                    further[id(row)] = scan_masks(plan, target, row, data, check)
                    continue
            else:
                opened = open_image(data, plan.limits, row.path) if plan.by_frame else None
                if opened is not None and opened.image is None:
                    further[id(row)] = scan_frames(plan, target, row, opened, check)
                    continue
                pixels = _look_at_image(row, data, plan.limits, opened)
        except OteoError as exc:
            row.code, row.message = exc.reason, exc.message
            continue
        decoded.append((row, data, pixels))
        held += pixels.nbytes
        if held >= _BLOCK_BYTES:
            _finish_block(target, decoded)
            decoded, held = [], 0
    _finish_block(target, decoded)


def _finish_block(target: Target, decoded: Sequence[tuple[Scanned, bytes, NDArray[Any]]]) -> None:
    images = [(row, pixels) for row, _, pixels in decoded if row.kind == IMAGE]
    for row, pixels in images:
        row.pixel_digest = pixel_digest(pixels)
    for row, pixels in images:
        row.phash = perceptual_hash(pixels)
    for row, data, _ in decoded:
        row.media = media_path(row.sha256, row.path)
        target.write(row.media, data)


def _look_at_image(row: Scanned, data: bytes, limits: ImageLimits, opened: Opened | None) -> NDArray[Any]:
    if opened is not None and opened.image is not None:
        header, pixels = opened.image, next(opened.frames).pixels
        row.spacing = opened.header.spacing
    else:
        image = decode(data, limits)
        header, pixels = image.header, image.pixels
    row.height, row.width, row.channels = pixels.shape
    row.dtype = header.pixel_type
    row.frames = header.frames
    row.bit_depth = significant_bits(pixels, header.bit_depth)
    return pixels
