"""Decodes JPEG-LS streams that come on standard input, one after the other, until there are no more. Run as a file, by `apart`.

It imports nothing of Oteo, so that it is there quickly. A message is its length (8 bytes, little-endian) and its bytes. An answer is a line of JSON, its
length before it, and the pixels behind it: ``{"dtype": ..., "shape": [...]}``, or ``{"error": ...}`` without pixels.
"""

from __future__ import annotations

import json
import struct
import sys

import imagecodecs
import numpy as np


def main() -> None:
    """Answer until standard input ends, as it does where the process that asks is gone."""
    asked, answered = sys.stdin.buffer, sys.stdout.buffer
    while len(head := asked.read(8)) == 8:
        data = asked.read(struct.unpack("<Q", head)[0])
        pixels = b""
        try:
            decoded = np.ascontiguousarray(imagecodecs.jpegls_decode(data))
            words, pixels = {"dtype": decoded.dtype.str, "shape": list(decoded.shape)}, decoded.tobytes()
        except Exception as exc:  # noqa: BLE001 (whatever it is, it is the answer)
            words = {"error": f"{type(exc).__name__}: {exc}"}
        line = json.dumps(words).encode()
        answered.write(struct.pack("<QQ", len(line), len(pixels)) + line + pixels)
        answered.flush()


if __name__ == "__main__":
    main()
