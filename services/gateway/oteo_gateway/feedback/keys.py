"""The hashes that stand for images and groups of corrections: under a key derived from the installation's own for de-identification."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from oteo_core.deidentification.keys import derived
from oteo_core.keyed import keyed_hash


class FeedbackKey:
    """Hashes under the installation's key.

    Parameters
    ----------
    read
        Gives the key for de-identification (`CoreSettings.deidentification_key`); called when the first hash is asked for.
    """

    def __init__(self, read: Callable[[], bytes]) -> None:
        self._read = read

    def image(self, sha256: str, frame: int) -> str:
        """Give what stands for a frame of an image: 64 hexadecimal digits."""
        return keyed_hash(self._secret, f"image:{sha256}:{frame}", 64)

    def group(self, name: str) -> str:
        """Give what stands for a group; "" for none."""
        return keyed_hash(self._secret, f"group:{name}") if name else ""

    def request(self, digest: str) -> str:
        """Give what stands for a request, whose digest covers the image's: 64 hexadecimal digits."""
        return keyed_hash(self._secret, f"request:{digest}", 64)

    @cached_property
    def _secret(self) -> bytes:
        return derived(self._read(), "feedback")
