"""The key of the hashes that stand for images and groups: made once for an artifact store, and in no database."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import NotFound, Unavailable
from oteo_core.keyed import keyed_hash

KEY = "keys/feedback.bin"
_BYTES = 32
_LEASE = "feedback-key"
_LEASE_SECONDS = 10.0
_PATIENCE = 5.0


class FeedbackKey:
    """Hashes under the installation's key.

    Parameters
    ----------
    store
        The artifact store.
    lease
        Takes a lease among gateways by name and seconds, so that two of them do not make a key each.
    """

    def __init__(self, store: ArtifactStore, lease: Callable[[str, float], bool]) -> None:
        self._store = store
        self._lease = lease
        self._lock = threading.Lock()
        self._key = b""

    def image(self, sha256: str, frame: int) -> str:
        """Give what stands for a frame of an image: 64 hexadecimal digits."""
        return keyed_hash(self._secret(), f"image:{sha256}:{frame}", 64)

    def group(self, name: str) -> str:
        """Give what stands for a group; "" for none."""
        return keyed_hash(self._secret(), f"group:{name}") if name else ""

    def request(self, digest: str) -> str:
        """Give what stands for a request, whose digest covers the image's: 64 hexadecimal digits."""
        return keyed_hash(self._secret(), f"request:{digest}", 64)

    def _secret(self) -> bytes:
        with self._lock:
            end = time.monotonic() + _PATIENCE
            while not self._key:
                try:
                    self._key = self._store.read_bytes(KEY)
                except NotFound:
                    if self._lease(_LEASE, _LEASE_SECONDS):
                        # Nobody else makes one now, and nobody had.
                        if not self._store.is_file(KEY):
                            self._store.write_bytes(KEY, secrets.token_bytes(_BYTES))
                    elif time.monotonic() > end:
                        raise Unavailable(
                            "The key for corrections is being made; try again.", reason="KEY_NOT_READY", retry_after=1.0
                        ) from None
                    else:
                        time.sleep(0.1)
            return self._key
