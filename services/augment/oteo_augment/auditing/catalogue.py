"""The names of the checks, apart from their code: what a server must know to refuse a name, without loading what the checks stand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oteo_core.datasets import Task
from oteo_core.errors import InvalidArgument

_ANY: tuple[str, ...] = tuple(Task)
_OBJECTS: tuple[str, ...] = (Task.DETECTION, Task.SEMANTIC, Task.INSTANCE, Task.KEYPOINTS)


@dataclass(frozen=True, slots=True)
class CheckInfo:
    """What a check is.

    Parameters
    ----------
    name
        By which a caller chooses it.
    looks_for
        A sentence for people.
    tasks
        Tasks that it applies to.
    """

    name: str
    looks_for: str
    tasks: tuple[str, ...] = _ANY


CATALOGUE: tuple[CheckInfo, ...] = (
    CheckInfo("files", "Files that cannot be read or have changed since the import, and what the import left out."),
    CheckInfo("duplicates", "The same picture twice, pictures that look alike, and one picture under two labels."),
    CheckInfo("leaks", "A group or a picture that is in training and in validation or test at once."),
    CheckInfo("balance", "Classes that are rare, or missing from a part."),
    CheckInfo("sizes", "Image sizes: mixed, outlying, too small to see anything."),
    CheckInfo("modes", "Pixel types and channels: mixed depths, grey beside colour, grey saved as colour."),
    CheckInfo("annotations", "Annotations that are empty, tiny, huge, outside their image or there twice; images without any."),
    CheckInfo("channels", "Brightness and contrast: constant, nearly black or white, clipped or outlying images and channels."),
    CheckInfo("text", "Writing that may be burned into the picture: names, dates, markers."),
    CheckInfo("label_errors", "Labels that a simple classifier, trained without the image, contradicts.", (Task.CLASSIFICATION,)),
)
"""All checks, in the order in which they run and are reported."""

NAMES: tuple[str, ...] = tuple(check.name for check in CATALOGUE)
"""Names of all checks, in order."""


def choose(names: Sequence[str]) -> tuple[str, ...]:
    """Give the checks that were asked for, in the catalogue's order; all where none was named.

    Raises
    ------
    InvalidArgument
        UNKNOWN_CHECK, field ``checks[i]``.
    """
    for index, name in enumerate(names):
        if name not in NAMES:
            raise InvalidArgument(
                f"there is no check {name!r}; there are {', '.join(NAMES)}", reason="UNKNOWN_CHECK", field=f"checks[{index}]"
            )
    return tuple(name for name in NAMES if not names or name in names)
