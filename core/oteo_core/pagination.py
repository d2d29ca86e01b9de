"""Page tokens (AIP-158): opaque, and good only for the query that they came from."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from oteo_core.errors import InvalidArgument
from oteo_core.operations.replays import request_digest

T = TypeVar("T")


def _query_digest(request: Message) -> str:
    """Give a digest of everything in a request but its page."""
    return request_digest(request, "page_token", "page_size")[:12]


def encode_token(request: Message, position: str) -> str:
    """Give the token for what follows ``position``, the key of a page's last item; empty for an empty position."""
    if not position:
        return ""
    return base64.urlsafe_b64encode(json.dumps([_query_digest(request), position]).encode()).decode().rstrip("=")


def decode_token(request: Message, token: str) -> str:
    """Give the position in a token; empty for the first page.

    Raises
    ------
    InvalidArgument
        The token is not one, or belongs to another query.
    """
    if not token:
        return ""
    try:
        digest, position = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError):
        raise not_ours() from None
    if digest != _query_digest(request):
        raise InvalidArgument(
            "this page token belongs to a query with other settings; begin at the first page", reason="BAD_PAGE_TOKEN", field="page_token"
        )
    return str(position)


def not_ours() -> InvalidArgument:
    """Make the error for a token that no list gave; also for who finds no position of its own in what `decode_token` gave."""
    return InvalidArgument("this page token was not made here", reason="BAD_PAGE_TOKEN", field="page_token")


def page_size(asked: int, default: int = 50, most: int = 1000) -> int:
    """Give the size of a page: the default for 0, and never more than ``most``."""
    return min(asked or default, most)


def paginate(request: Message, items: Sequence[T], key: Callable[[T], str], *, token: str, size: int) -> tuple[list[T], str]:
    """Give one page of items and the token for the next.

    ``items`` stand in a fixed order and ``key`` is unique; an item that was deleted since makes its page begin at the next larger position.
    """
    position = decode_token(request, token)
    start = 0
    if position:
        keys = [key(item) for item in items]
        start = keys.index(position) + 1 if position in keys else sum(1 for other in keys if other <= position)
    page = list(items[start : start + size])
    more = start + size < len(items)
    return page, encode_token(request, key(page[-1])) if more and page else ""


def falling(text: str) -> str:
    """Turn a key over, so that a list that falls by it rises by this: page tokens ask for keys that rise."""
    return "".join(chr(0x7F - min(ord(character), 0x7E)) for character in text)
