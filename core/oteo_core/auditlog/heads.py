"""Signed heads of the chains, kept apart from them: what a chain had reached, so that one that was cut short or taken away is missed.

In the second place a chain has ``{chain}/head.json``, the newest, and ``{chain}/heads/{first}.json`` of each of its files that was closed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from oteo_core.artifacts import ArtifactStore, join
from oteo_core.auditlog.canonical import canonical
from oteo_core.auditlog.keys import Keys
from oteo_core.errors import DataLoss, NotFound

HEAD = "head.json"
CLOSED = "heads"


@dataclass(frozen=True, slots=True)
class Head:
    """How far a chain had come.

    Attributes
    ----------
    chain
        Its name.
    seq
        Number of its last record; -1 where it has none yet.
    hash
        That record's hash.
    time
        When this was signed.
    segment
        Number of the first record in the file that the last one is in.
    """

    chain: str
    seq: int
    hash: str
    time: str
    segment: int

    def sign(self, keys: Keys) -> bytes:
        """Give the signed head as JSON."""
        fields: dict[str, Any] = {"v": 1, **asdict(self), "key": keys.signing.id}
        fields["mac"] = keys.signing.head_mac(canonical(fields))
        return canonical(fields)


def read_head(data: bytes, keys: Keys | None) -> Head:
    """Read a head and check its signature (None: not).

    Raises
    ------
    DataLoss
        ``AUDIT_HEAD_CHANGED``: it is not what was signed.
    """
    try:
        fields = json.loads(data)
        mac = fields.pop("mac")
        key = None if keys is None else keys.get(fields["key"])
        if canonical({**fields, "mac": mac}) != data or (keys is not None and (key is None or key.head_mac(canonical(fields)) != mac)):
            raise ValueError("signature")  # noqa: TRY301 - all that is wrong with a head is one error
        return Head(str(fields["chain"]), int(fields["seq"]), str(fields["hash"]), str(fields["time"]), int(fields["segment"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataLoss("a head of the audit log is not what was signed", reason="AUDIT_HEAD_CHANGED") from error


@dataclass
class Heads:
    """All heads of the second place.

    Attributes
    ----------
    newest
        The newest head by chain.
    closed
        Heads of closed files, by chain.
    bad
        Paths of those that are not what was signed.
    """

    newest: dict[str, Head] = field(default_factory=dict)
    closed: dict[str, list[Head]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


class HeadStore:
    """The second place.

    Parameters
    ----------
    store
        A store, other than the folder of the chains; best one whose objects cannot be changed (S3's object lock).
    prefix
        Path in it.
    keys
        They sign and check.
    """

    def __init__(self, store: ArtifactStore, prefix: str, keys: Keys | None) -> None:
        self._store = store
        self._prefix = prefix
        self._keys = keys

    def _path(self, *parts: str) -> str:
        return join(self._prefix, *parts) if self._prefix else join(*parts)

    def read(self, chain: str) -> Head | None:
        """Give a chain's newest head; None where there is none.

        Raises
        ------
        DataLoss
            It is not what was signed, or another chain's.
        """
        try:
            data = self._store.read_bytes(self._path(chain, HEAD))
        except NotFound:
            return None
        head = read_head(data, self._keys)
        if head.chain != chain:
            raise DataLoss("a head of the audit log is another chain's", reason="AUDIT_HEAD_CHANGED")
        return head

    def write(self, head: Head, *, closed: bool = False) -> None:
        """Keep a head; with ``closed`` it is of a file that was closed, and stays beside later ones."""
        if self._keys is None:
            raise ValueError("heads are signed with a key")
        name = (CLOSED, f"{head.segment:016d}.json") if closed else (HEAD,)
        self._store.write_bytes(self._path(head.chain, *name), head.sign(self._keys))

    def archive(self, chain: str, segment: Path) -> None:
        """Copy one of a chain's files here."""
        self._store.put_file(segment, self._path(chain, segment.name))

    def chains(self) -> list[str]:
        """Give the names of all chains that have something here."""
        return list(self._store.children(self._prefix))

    def _entries(self) -> Iterator[str]:
        for entry in self._store.iter(self._prefix):
            yield entry.path

    def all(self) -> Heads:
        """Read everything."""
        found = Heads()
        for path in self._entries():
            parts = path.removeprefix(f"{self._prefix}/" if self._prefix else "").split("/")
            is_newest = len(parts) == 2 and parts[1] == HEAD
            is_closed = len(parts) == 3 and parts[1] == CLOSED and parts[2].endswith(".json")
            if not (is_newest or is_closed):
                continue
            try:
                head = read_head(self._store.read_bytes(path), self._keys)
                if head.chain != parts[0] or (is_closed and parts[2] != f"{head.segment:016d}.json"):
                    raise DataLoss("a head lies in the wrong place", reason="AUDIT_HEAD_CHANGED")  # noqa: TRY301 - as one that was changed
            except DataLoss:
                found.bad.append("/".join(parts))
                continue
            if is_newest:
                found.newest[head.chain] = head
            else:
                found.closed.setdefault(head.chain, []).append(head)
        return found
