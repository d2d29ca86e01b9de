"""What stands in the log, and the rules that keep everything else out of it.

Each field has a form, and what does not have it never reaches the log: names that people choose, file names, patient identifiers, texts of requests
and tokens have no field at all. What comes from callers and is needed (who they say they are, their request id) is kept where it looks like an
identifier, and as a keyed hash where it does not.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from oteo_core.auditlog.canonical import LARGEST, canonical, encode
from oteo_core.auditlog.keys import Key, Keys

VERSION = 1
_BLANK = {"hash": "", "mac": ""}
"""A record's hash is that of its canonical form with these two empty."""
GENESIS = "0" * 64
"""What the first record of a chain names as the hash before it."""

KINDS = ("call", "attempt", "item", "operation", "log")
"""A call that was answered; one that is about to be carried out; an image of a stream; an operation's end; the log's own."""

_RESOURCE = re.compile(r"(datasets|models|translators|deployments|operations|pipelines)/[a-z][a-z0-9-]{0,127}(?=/|$)")
_ACTION = re.compile(r"[A-Za-z][A-Za-z0-9_.]{0,127}(/[A-Za-z][A-Za-z0-9_]{0,127})?")
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_ACTOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:/|+=-]{0,254}")
_ROLE = re.compile(r"[A-Za-z][A-Za-z0-9._:-]{0,63}")
_REQUEST = re.compile(r"[0-9a-f]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_VERSION = re.compile(r"[0-9]{1,20}")
_DIGEST = re.compile(r"[0-9a-f]{12,128}")
_CHAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")

_SHIFT = frozenset({"usual", "unusual"})
_NUMBERS = frozenset({"count", "bytes", "seq", "first", "last", "pid", "items", "failed"})
_FORMS: Mapping[str, re.Pattern[str]] = {
    "dataset": _RESOURCE,
    "dataset_digest": _DIGEST,
    "model": _RESOURCE,
    "model_digest": _DIGEST,
    "model_version": _VERSION,
    "translator": _RESOURCE,
    "deployment": _RESOURCE,
    "operation": _RESOURCE,
    "reference_dataset": _RESOURCE,
    "home_dataset": _RESOURCE,
    "shifted_dataset": _RESOURCE,
    "unlabelled_dataset": _RESOURCE,
    "image": _DIGEST,
    "digest": _DIGEST,
    "method": _ACTION,
    "state": _CODE,
    "chain": _CHAIN,
    "release": re.compile(r"[0-9][0-9a-z.+-]{0,31}"),
}
"""Forms of what was used; a name that is not here is refused."""


def resource_name(text: str) -> str:
    """Give a resource's name as it may stand in the log: ``datasets/x`` of ``datasets/x/samples/y``; empty where it is none."""
    found = _RESOURCE.match(text)
    return found.group() if found else ""


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, as it is handed to the log.

    Attributes
    ----------
    kind
        One of `KINDS`.
    action
        Full method without the first slash, ``oteo.automl.v1.AutoMLService/TrainModel``, or an event of our own, ``log.start``.
    actor
        Who called.
    roles
        What the caller was allowed to be.
    source
        Address that the call came from, without its port.
    resource
        Name of what it was done to.
    code
        Canonical code of the outcome: ``OK``, ``NOT_FOUND`` …; empty in an attempt.
    reason
        UPPER_SNAKE reason of an error.
    request
        The call's request id.
    used
        What was used, by the names of `_FORMS`: model, its version and digest, dataset, translator, the image's keyed hash; ``shift``; counts.
    peers
        Chains known at this time with their last number and hash; the log's own.
    """

    kind: str
    action: str
    actor: str = ""
    roles: Sequence[str] = ()
    source: str = ""
    resource: str = ""
    code: str = ""
    reason: str = ""
    request: str = ""
    used: Mapping[str, str | int] = field(default_factory=dict)
    peers: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def fields(self, key: Key) -> dict[str, Any]:
        """Give the fields that may stand in the log; those that are empty are left out.

        Raises
        ------
        ValueError
            A kind, or a name of what was used, that the log does not know: a mistake in the program.
        """
        if self.kind not in KINDS:
            raise ValueError(f"the audit log knows no kind {self.kind!r}")
        found: dict[str, Any] = {"kind": self.kind, "action": self.action if _ACTION.fullmatch(self.action) else "unknown"}
        if self.actor:
            found["actor"] = self.actor if _ACTOR.fullmatch(self.actor) else f"hash:{key.pseudonym('actor', self.actor)}"
        roles = [role for role in self.roles if _ROLE.fullmatch(role)]
        if roles:
            found["roles"] = roles
        source = _address(self.source)
        if source:
            found["source"] = source
        resource = resource_name(self.resource)
        if resource:
            found["resource"] = resource
        if self.code:
            found["code"] = self.code if _CODE.fullmatch(self.code) else "UNKNOWN"
        if self.reason:
            found["reason"] = self.reason if _CODE.fullmatch(self.reason) else "OTHER"
        if self.request:
            found["request"] = self.request if _REQUEST.fullmatch(self.request) else f"hash:{key.pseudonym('request', self.request)}"
        used = {name: kept for name, value in self.used.items() if (kept := _kept(name, value)) is not None}
        if used:
            found["used"] = used
        if self.peers:
            found["peers"] = {chain: [seq, digest] for chain, (seq, digest) in self.peers.items()}
        return found


def _kept(name: str, value: str | int) -> str | int | None:
    if name in _NUMBERS:
        return min(int(value), LARGEST)
    if name == "shift":
        return value if value in _SHIFT else None
    form = _FORMS.get(name)
    if form is None:
        raise ValueError(f"the audit log has no place for {name!r}")
    text = str(value)
    if form is _RESOURCE:
        return resource_name(text) or None
    return text if form.fullmatch(text) else None


@lru_cache(1024)
def _address(text: str) -> str:
    """Give an address as the standard writes it; empty where it is none, such as a host's name."""
    try:
        return str(ipaddress.ip_address(text)) if text else ""
    except ValueError:
        return ""


def timestamp(seconds: float) -> str:
    """Give a time as the log writes it: UTC, milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def seal(fields: dict[str, Any], *, chain: str, boot: str, seq: int, previous: str, seconds: float, key: Key) -> tuple[bytes, str]:
    """Put a record in its place in a chain.

    Returns
    -------
    tuple
        The line with its line feed, and the record's hash.
    """
    fields.update(v=VERSION, chain=chain, boot=boot, seq=seq, time=timestamp(seconds), prev=previous, key=key.id, **_BLANK)
    # `Event.fields` gives nothing that has no canonical form.
    body = encode(fields)
    digest = hashlib.sha256(body)
    text = digest.hexdigest()
    line = body.replace(b'"hash":""', f'"hash":"{text}"'.encode(), 1).replace(
        b'"mac":""', f'"mac":"{key.record_mac(digest.digest())}"'.encode(), 1
    )
    return line + b"\n", text


class BadRecord(ValueError):
    """A line that is not a record of ours as it was written."""


def read_line(line: bytes, keys: Keys | None) -> dict[str, Any]:
    """Read a line and check that it is what was written.

    Parameters
    ----------
    line
        With its line feed.
    keys
        Keys to check the signature with; None: only the hash is checked, which whoever changes a record can compute anew.

    Raises
    ------
    BadRecord
        Says what is wrong.
    """
    if not line.endswith(b"\n"):
        raise BadRecord("the line does not end")
    body = line[:-1]
    try:
        record = json.loads(body)
    except ValueError as error:
        raise BadRecord("the line is not JSON") from error
    if not isinstance(record, dict):
        raise BadRecord("the line is no record")
    try:
        if canonical(record) != body:
            raise BadRecord("the line is not in canonical form")  # noqa: TRY301 - as what is not canonical at all
        seen, mac = record.get("hash"), record.get("mac")
        digest = hashlib.sha256(canonical({**record, **_BLANK}))
    except BadRecord:
        raise
    except ValueError as error:
        raise BadRecord(str(error)) from error
    if digest.hexdigest() != seen:
        raise BadRecord("the hash is not that of the record")
    for name, kind in (("seq", int), ("prev", str), ("chain", str), ("time", str), ("kind", str), ("action", str), ("key", str)):
        if not isinstance(record.get(name), kind):
            raise BadRecord(f"the record has no {name}")
    if keys is not None:
        key = keys.get(record["key"])
        if key is None:
            raise BadRecord(f"the record was signed with the key {record['key']}, which is not in the key file")
        if key.record_mac(digest.digest()) != mac:
            raise BadRecord("the signature is not that of the record")
    return record
