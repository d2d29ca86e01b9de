"""The keys of the log: without them nobody can write a chain that passes for ours.

A key file holds one key a line, at least 32 bytes in hexadecimal. The first one signs; all of them check, so that a key is changed by putting a new
line before the old ones. What is signed for different ends is signed with different keys, derived from the one (RFC 5869's expansion, one block).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from oteo_core.errors import FailedPrecondition

_LEAST = 32


def _derive(key: bytes, purpose: str) -> bytes:
    return hmac.digest(key, f"oteo-audit {purpose}\x01".encode(), "sha256")


class Key:
    """One key: its public id and what is derived from it."""

    def __init__(self, secret: bytes) -> None:
        self.id = hashlib.sha256(b"oteo-audit key id" + secret).hexdigest()[:12]
        self._record = _derive(secret, "record")
        self._head = _derive(secret, "head")
        self._pseudonym = _derive(secret, "pseudonym")

    def record_mac(self, digest: bytes) -> str:
        """Sign a record's hash."""
        return hmac.digest(self._record, digest, "sha256").hex()

    def head_mac(self, data: bytes) -> str:
        """Sign a checkpoint."""
        return hmac.digest(self._head, data, "sha256").hex()

    def pseudonym(self, kind: str, value: str) -> str:
        """Give a keyed hash of something that must not stand in the log: the same value gives the same hash, and without the key nobody can try values.

        An image's plain SHA-256 would tell anybody who has the image that it was sent; this tells only who holds the key.
        """
        return hmac.digest(self._pseudonym, f"{kind}\x00{value}".encode("utf-8", "surrogatepass"), "sha256").hex()[:32]


class Keys:
    """All keys of a key file, the signing one first."""

    def __init__(self, secrets_: Sequence[bytes]) -> None:
        if not secrets_ or any(len(secret) < _LEAST for secret in secrets_):
            raise FailedPrecondition(
                f"an audit key needs at least {_LEAST} bytes: write one with `openssl rand -hex 32`", reason="AUDIT_KEY_INVALID"
            )
        found = [Key(secret) for secret in secrets_]
        self.signing = found[0]
        self._by_id = {key.id: key for key in found}

    def get(self, key_id: str) -> Key | None:
        """Give a key by its id; None where it is not among these."""
        return self._by_id.get(key_id)


def load_keys(path: Path) -> Keys:
    """Read a key file.

    Raises
    ------
    FailedPrecondition
        ``AUDIT_KEY_INVALID``: not there, not readable, empty, not hexadecimal or too short.
    """
    try:
        lines = path.read_text("ascii").split()
        return Keys([bytes.fromhex(line) for line in lines])
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not hexadecimal"
        raise FailedPrecondition(f"the audit key file {path} cannot be used: {why}", reason="AUDIT_KEY_INVALID") from error


def make_key_file(path: Path) -> None:
    """Make a key file that only its owner may read, unless there is one; several processes may do so at once."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(_LEAST) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A link fails where another process was first: its key is then the one.
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        temporary.unlink(missing_ok=True)
