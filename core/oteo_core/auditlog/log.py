"""The log as a process writes it: from any thread, with one disk access for many records, and heads kept elsewhere."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from oteo_core import telemetry
from oteo_core.artifacts import ArtifactStore
from oteo_core.auditlog import recovery
from oteo_core.auditlog.chain import ChainTaken, ChainWriter
from oteo_core.auditlog.heads import Head, HeadStore
from oteo_core.auditlog.keys import Keys, load_keys, make_key_file
from oteo_core.auditlog.record import KINDS, Event
from oteo_core.auditlog.recovery import DamagedChain
from oteo_core.auditlog.settings import AuditSettings
from oteo_core.errors import OteoError, Unavailable

LOG = telemetry.logger("oteo.audit")
_RETRY_SECONDS = 1.0
_WRITTEN = {kind: telemetry.AUDIT_RECORDS.labels(kind) for kind in KINDS}
_PEERS = 100
_MOST_CHAINS = 1000
Done = Callable[[OSError | None], None]


def _unavailable(error: BaseException | str) -> Unavailable:
    why = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
    return Unavailable(
        f"the audit log cannot be written ({why}), and what is not logged is not done; ask who runs this system",
        reason="AUDIT_UNAVAILABLE",
        retry_after=5.0,
    )


def _settle(future: asyncio.Future[OSError | None], error: OSError | None) -> None:
    if not future.done():
        future.set_result(error)


def chain_name(instance: str) -> str:
    """Give a name as chains have it."""
    return re.sub(r"[^a-z0-9._-]+", "-", (instance or socket.gethostname()).lower()).strip("-._")[:100] or "chain"


class AuditLog:
    """One process's part of the audit log.

    Parameters
    ----------
    settings
        Where it is, its keys, and its periods.
    clock
        Gives the time, seconds since 1970.

    Raises
    ------
    FailedPrecondition
        ``AUDIT_KEY_INVALID``.
    """

    def __init__(self, settings: AuditSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._folder = settings.audit_place
        if settings.audit_key_file is None:
            make_key_file(settings.audit_key_place)
        self._keys: Keys = load_keys(settings.audit_key_place)
        options = {} if settings.audit_heads else settings.artifact_options
        self._heads = HeadStore(ArtifactStore(settings.audit_heads_place, **options), "", self._keys)
        self._boot = secrets.token_hex(6)
        self._base = chain_name(settings.audit_instance)
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._writer: ChainWriter | None = None
        self._why: OSError | OteoError | None = None
        self._missed = 0
        self._synced = -1
        self._waiting: list[tuple[int, Done]] = []
        self._closed: list[tuple[Path, Head]] = []
        self._kept = -1
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def chain(self) -> str:
        """Name of the chain that is written; empty where none can be."""
        writer = self._writer
        return writer.chain if writer is not None else ""

    def pseudonym(self, kind: str, value: str) -> str:
        """Give the keyed hash that stands for a value in this log."""
        return self._keys.signing.pseudonym(kind, value)

    def start(self) -> None:
        """Open the chain, if it can be, and start what synchronises it, opens it again, and keeps its heads."""
        self._try_to_open()
        for name, work in (("audit-sync", self._synchronise), ("audit-heads", self._keep_heads)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def close(self) -> None:
        """Write the last record, have everything on the disk and keep the last head."""
        try:
            self.append(Event("log", "log.stop", code="OK"))
        except OteoError as error:
            LOG.error("audit log not closed in order", error=str(error))  # noqa: TRY400 - the sentence says it
        self._closing.set()
        with self._wake:
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(30)
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None

    def _note_failure(self, error: OSError | OteoError) -> None:
        if self._why is None:
            LOG.error("the audit log cannot be written", error=str(error))
        telemetry.AUDIT_FAILURES.inc()
        self._why = error

    def _try_to_open(self) -> None:
        """Open a chain; only one thread does so at a time, without the lock: the second place may take its time."""
        try:
            writer, head, left = self._open()
            try:
                self._begin(writer, left)
                kept = -1 if head is None else head.seq
                closed = recovery.closed_since(writer.folder, writer.chain, self._keys, head)
            except BaseException:
                writer.close()
                raise
        except (OSError, OteoError, DamagedChain) as error:
            with self._lock:
                self._note_failure(error if not isinstance(error, DamagedChain) else OSError(f"a chain is damaged: {error}"))
            return
        with self._wake:
            self._writer, self._why, self._synced = writer, None, -1
            self._kept, self._closed = kept, closed
            self._wake.notify_all()

    def _open(self) -> tuple[ChainWriter, Head | None, list[tuple[str, str]]]:
        """Open the first chain of this instance's that can be continued, or a new one; give its head, and the chains that were left with the reason."""
        left: list[tuple[str, str]] = []
        for number in range(1, _MOST_CHAINS):
            chain = self._base if number == 1 else f"{self._base}-{number}"
            folder = self._folder / chain
            head: Head | None = None
            try:
                head = self._heads.read(chain)
            except OteoError as error:
                # Without its head nobody can tell whether a chain was cut: another one is begun.
                if folder.exists() or error.reason == "AUDIT_HEAD_CHANGED":
                    left.append((chain, error.reason))
                    continue
            try:
                writer = ChainWriter(
                    folder,
                    chain,
                    self._keys,
                    head,
                    boot=self._boot,
                    segment_bytes=self._settings.audit_segment_bytes,
                    clock=self._clock,
                )
            except ChainTaken:
                continue
            except DamagedChain as damage:
                left.append((chain, str(damage)))
                continue
            return writer, head, left
        raise OSError("no chain can be written")

    def _begin(self, writer: ChainWriter, left: Sequence[tuple[str, str]]) -> None:
        """Write what a run begins with: who writes, which other chains there are, which of its own it has left as they are."""
        writer.append(
            Event(
                "log",
                "log.start",
                code="OK",
                used={"pid": os.getpid(), "release": metadata.version("oteo-core")},
                peers=self._peers(writer.chain),
            )
        )
        for chain, reason in left:
            LOG.error("a chain of the audit log is not continued", chain=chain, reason=reason)
            writer.append(Event("log", "log.left", code="DATA_LOSS", reason=reason, used={"chain": chain}))

    def _peers(self, own: str) -> Mapping[str, tuple[int, str]]:
        """Give the other chains' heads: written into this chain, they show that those were there."""
        try:
            found = [head for chain in self._heads.chains() if chain != own and (head := self._heads.read(chain)) is not None]
        except OteoError as error:
            LOG.warning("heads of the audit log cannot be read", error=str(error))
            return {}
        found.sort(key=lambda head: head.time, reverse=True)
        return {head.chain: (head.seq, head.hash) for head in found[:_PEERS]}

    def append(self, event: Event) -> int:
        """Write a record: when this returns, no kill of the process can undo it. Gives a number for `wait`.

        Raises
        ------
        Unavailable
            ``AUDIT_UNAVAILABLE``: the disk is full, read-only, away. A chain that could not be opened is tried again every second.
        """
        with self._lock:
            writer = self._writer
            if writer is None:
                telemetry.AUDIT_FAILURES.inc()
                raise _unavailable(self._why or OSError("it is not open"))
            try:
                if self._missed:
                    writer.append(Event("log", "log.gap", code="DATA_LOSS", reason="NOT_WRITTEN", used={"count": self._missed}))
                    self._missed = 0
                if writer.is_full():
                    self._closed.append(writer.roll())
                seq = writer.append(event)
            except OSError as error:
                self._note_failure(error)
                raise _unavailable(error) from error
            self._why = None
        _WRITTEN[event.kind].inc()
        return seq

    def missed(self) -> None:
        """Count something that was done and could not be logged; the chain says how many, when it can be written again."""
        with self._lock:
            self._missed += 1

    def when_synced(self, seq: int, done: Done) -> None:
        """Have a function called, in another thread, when a record is on the disk or could not be brought there."""
        with self._wake:
            if self._synced < seq:
                self._waiting.append((seq, done))
                self._wake.notify_all()
                return
        done(None)

    async def synced(self, seq: int) -> None:
        """Wait until a record is on the disk; several that wait share one access.

        Raises
        ------
        Unavailable
            ``AUDIT_UNAVAILABLE``.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[OSError | None] = loop.create_future()

        def done(error: OSError | None) -> None:
            loop.call_soon_threadsafe(_settle, future, error)

        self.when_synced(seq, done)
        error = await future
        if error is not None:
            raise _unavailable(error) from error

    def sync(self, seq: int) -> None:
        """Wait in a thread; as `synced`."""
        ended = threading.Event()
        found: list[OSError | None] = []

        def done(error: OSError | None) -> None:
            found.append(error)
            ended.set()

        self.when_synced(seq, done)
        ended.wait()
        if found[0] is not None:
            raise _unavailable(found[0]) from found[0]

    def _synchronise(self) -> None:
        while not self._sync_once():
            if self._writer is None and not self._closing.wait(_RETRY_SECONDS):
                self._try_to_open()

    def _sync_once(self) -> bool:
        """Synchronise once somebody waits, or after the period; True at the end."""
        with self._wake:
            if not self._waiting and not self._closing.is_set():
                self._wake.wait(self._settings.audit_sync_seconds)
            ending = self._closing.is_set() and not self._waiting
            writer = self._writer
            if writer is None or writer.seq == self._synced:
                waiting, self._waiting = (self._waiting, []) if writer is None else self._split(self._synced)
                error = OSError("the audit log was closed") if writer is None else None
                seq, descriptor = self._synced, -1
            else:
                seq, descriptor, error, waiting = writer.seq, writer.duplicate(), None, []
        if descriptor >= 0:
            try:
                os.fsync(descriptor)
            except OSError as failure:
                error = failure
            finally:
                os.close(descriptor)
            with self._wake:
                if error is None and self._writer is writer:
                    self._synced = max(self._synced, seq)
                elif error is not None:
                    # What the disk did not take may be gone though it can still be read: the chain is read anew before it goes on.
                    self._note_failure(error)
                    if self._writer is not None:
                        self._writer.close()
                    self._writer = None
                waiting, self._waiting = self._split(seq)
        for _, done in waiting:
            done(error)
        return ending

    def _split(self, seq: int) -> tuple[list[tuple[int, Done]], list[tuple[int, Done]]]:
        return [item for item in self._waiting if item[0] <= seq], [item for item in self._waiting if item[0] > seq]

    def _keep_heads(self) -> None:
        while True:
            ending = self._closing.wait(self._settings.audit_head_seconds)
            try:
                self.keep_head()
            except (OSError, OteoError) as error:
                LOG.warning("the head of the audit log was not kept", error=str(error))
            if ending:
                return

    def keep_head(self) -> None:
        """Sign the chain's head and keep it in the second place, where there is something new; forget what is old.

        Raises
        ------
        OteoError, OSError
            As the second place, or the disk, says.
        """
        with self._lock:
            writer = self._writer
            if writer is None:
                return
            head, closed, path = writer.head(), list(self._closed), writer.path
        if head.seq > self._kept or closed:
            self.sync(head.seq)
            for segment, last in closed:
                self._heads.write(last, closed=True)
                if self._settings.audit_archive:
                    self._heads.archive(last.chain, segment)
            if self._settings.audit_archive:
                self._heads.archive(head.chain, path)
            self._heads.write(head)
            with self._lock:
                self._kept = head.seq
                self._closed = [item for item in self._closed if item not in closed]
        if self._settings.audit_keep_days:
            with self._lock:
                if self._writer is not None and not self._closed:
                    for path in self._writer.forget(self._clock() - 86400 * self._settings.audit_keep_days):
                        LOG.info("a file of the audit log was kept long enough", file=path.name)
