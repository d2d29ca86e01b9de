"""What a caller should know beside the answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Note:
    """A finding about one answer.

    Attributes
    ----------
    code
        UPPER_SNAKE.
    message
        A sentence.
    warning
        True where a person should look.
    """

    code: str
    message: str
    warning: bool = False
