"""Files of an operation in the artifact store, and what its attempt record says."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

REQUEST = "request.binpb"
"""The request, serialised."""
ATTEMPT = "attempt.json"
"""Which attempt may work: its presence and number are the job's lease."""
PROGRESS = "progress.binpb"
"""The operation's metadata as `google.protobuf.Any`, rewritten every two seconds while the job lives."""
RESULT = "result.binpb"
"""The response as `google.protobuf.Any`."""
ERROR = "error.binpb"
"""`google.rpc.Status` of a job that ended with an error that trying again would not change."""
CANCEL = "cancel"
"""There when the job is to stop."""
CHECKPOINTS = "checkpoints"
STAGING = "staging"
PUBLICATIONS = "publications"
"""Records of what the job published or began to publish."""


def folder(operation_id: str) -> str:
    """Give an operation's folder in the artifact store."""
    return f"operations/{operation_id}"


def crash_path(operation_id: str, attempt: int) -> str:
    """Give the place of the `Crash` of an attempt."""
    return f"{folder(operation_id)}/crash-{attempt}.json"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a job is told beside its request."""

    number: int
    """From 1."""
    limit: int
    """Number of the last attempt."""
    service: str
    method: str
    caller: str
    create_time: float
    """Seconds since 1970."""
    deadline: float | None = None
    """Seconds since 1970; None for no deadline."""

    def to_json(self) -> bytes:
        """Serialise."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Attempt:
        """Read."""
        return cls(**json.loads(data))

    @property
    def deadline_time(self) -> datetime | None:
        """The deadline as a time in UTC."""
        return None if self.deadline is None else datetime.fromtimestamp(self.deadline, UTC)


@dataclass(frozen=True, slots=True)
class Crash:
    """How an attempt ended that ended badly, where it could still say so."""

    message: str
    """For a person."""
    place: str
    """Exception and line, alike for the same fault."""
    transient: bool
    """Whether trying again is likely to help (memory, something that did not answer)."""

    def to_json(self) -> bytes:
        """Serialise."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Crash:
        """Read."""
        return cls(**json.loads(data))


@dataclass(frozen=True, slots=True)
class Publication:
    """What an operation published, or was about to."""

    target: str
    manifest: str
    digest: str
    """SHA-256 of the manifest."""

    @property
    def name(self) -> str:
        """Name of the record's file."""
        return f"{PUBLICATIONS}/{hashlib.sha256(self.target.encode()).hexdigest()[:24]}.json"

    def to_json(self) -> bytes:
        """Serialise."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Publication:
        """Read."""
        return cls(**json.loads(data))
