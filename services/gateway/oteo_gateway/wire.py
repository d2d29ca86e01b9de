"""A little of protobuf's wire format: what is needed to route and build large messages without decoding them.

Source: Protocol Buffers documentation, "Encoding" (wire types, varints, length-delimited records).
"""

from __future__ import annotations

from collections.abc import Sequence

_LENGTH_DELIMITED = 2


def varint(value: int) -> bytes:
    """Encode a number of 0 and up as a base-128 varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(number: int, payload: bytes) -> bytes:
    """Encode one length-delimited field: a string, bytes or message."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(payload)) + payload


def record_header(number: int, size: int) -> bytes:
    """Encode what stands before the payload of a length-delimited field of `size` bytes."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(size)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint too long")


def _last_record(message: bytes, number: int, *, first: bool = False) -> bytes:
    """Find a length-delimited field of the outermost message; raises IndexError or ValueError where the bytes are no message."""
    at = 0
    found = b""
    end = len(message)
    while at < end:
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _read_varint(message, at)
        elif kind == 1:
            at += 8
        elif kind == _LENGTH_DELIMITED:
            size, at = _read_varint(message, at)
            if tag >> 3 == number:
                found = message[at : at + size]
                if first:
                    return found
            at += size
        elif kind == 5:
            at += 4
        else:
            raise ValueError("no message")
    return found


def string_field(message: bytes, number: int) -> str:
    """Read a string field of the outermost message, skipping over the others.

    Parameters
    ----------
    message
        A serialised message of any size; payloads are stepped over, not read.
    number
        The field's number.

    Returns
    -------
    str
        The last value, as protobuf prescribes for a field given twice; empty where the field is absent or the bytes are no message:
        the server that the message is for judges it.
    """
    try:
        return _last_record(message, number).decode()
    except (IndexError, ValueError):
        return ""


def nested_string(message: bytes, path: Sequence[int]) -> str:
    """Read a string field of a message within messages, by the numbers of the fields from the outermost on; empty where it is absent."""
    try:
        for number in path:
            message = _last_record(message, number)
        return message.decode()
    except (IndexError, ValueError):
        return ""


_INPUTS, _SHAPE = 5, 3
_IMAGE_RANK = 4
_LARGEST_BATCH = 10_000


def batch_size(request: bytes) -> int:
    """Give how many images a ModelInferRequest of the Open Inference Protocol holds: the first dimension of its first input where that has four or more.

    At least 1, also where the bytes are no such request: the server that it is for judges it.
    """
    try:
        shape = _last_record(_last_record(request, _INPUTS, first=True), _SHAPE)
        sizes, at = [], 0
        while at < len(shape):
            size, at = _read_varint(shape, at)
            sizes.append(size)
    except (IndexError, ValueError):
        return 1
    return max(1, min(sizes[0], _LARGEST_BATCH)) if len(sizes) >= _IMAGE_RANK else 1
