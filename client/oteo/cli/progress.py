"""Live progress of operations, from their metadata."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import TypeVar

from google.protobuf.message import Message
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from oteo.cli.session import Session
from oteo.cli.words import duration, short
from oteo.errors import OteoApiError
from oteo.operations import OperationHandle
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, pipeline_pb2
from oteo_protos.translate.v1 import translate_pb2
from oteo_protos.type.v1 import report_pb2

T = TypeVar("T", bound=Message)
_LOOK_SECONDS = 2.0
"""Period in which a pipeline's running step is asked for its own metadata."""
_LINE_SECONDS = 15.0
"""Without a terminal, a line at least so often while something happens."""
_P = report_pb2.Progress
_SIGNS = {
    _P.STATE_SUCCEEDED: "[green]✓[/]",
    _P.STATE_FAILED: "[red]✗[/]",
    _P.STATE_CANCELLED: "[yellow]-[/]",
    _P.STATE_RUNNING: "[cyan]›[/]",
}


@dataclass
class Row:
    """One line of progress: what it is of, how far, and what there is to say."""

    label: str
    progress: report_pb2.Progress
    detail: str = ""


def detail_of(metadata: Message | None) -> str:
    """Say what is special in an operation's metadata: trials, samples, findings, replicas."""
    match metadata:
        case automl_pb2.TrainModelMetadata():
            return _training(metadata)
        case dataset_pb2.ImportDatasetMetadata():
            found = sum(count.count for count in metadata.findings)
            read = f"{metadata.read_count} of {metadata.found_count} files" if metadata.found_count else ""
            return ", ".join(part for part in (read, f"{found} findings" if found else "") if part)
        case dataset_pb2.AuditDatasetMetadata():
            found = sum(count.count for count in metadata.findings)
            done = f"{len(metadata.finished_checks)} checks done" if metadata.finished_checks else ""
            return ", ".join(part for part in (done, f"{found} findings" if found else "") if part)
        case augment_pb2.AugmentDatasetMetadata():
            return f"{metadata.written_count} of {metadata.total_count} samples" if metadata.total_count else ""
        case translate_pb2.TrainTranslatorMetadata():
            return _judged(metadata)
        case translate_pb2.TranslateDatasetMetadata():
            return f"{metadata.written_count} samples" if metadata.written_count else ""
        case dataset_pb2.ExportDatasetMetadata():
            return f"{metadata.written_count} samples" if metadata.written_count else ""
        case deployment_pb2.DeploymentMetadata():
            ready = sum(replica.ready for replica in metadata.replicas)
            return f"{ready} of {len(metadata.replicas)} replicas" if metadata.replicas else ""
        case _:
            return ""


_FIGURES = ("accuracy", "mean_average_precision", "map50_95", "dice", "pq", "log_loss")
"""What is shown of the best trial so far: the first that it has."""


def _training(metadata: automl_pb2.TrainModelMetadata) -> str:
    parts = []
    if metadata.HasField("best_trial"):
        best = metadata.best_trial
        metrics = {metric.name: metric.value for metric in best.metrics if not metric.class_name}
        name = next((name for name in _FIGURES if name in metrics), "")
        figure = (
            f" {name.replace('_', ' ')} {metrics[name]:.3f}" if name else f" {best.objective:.4f}" if best.HasField("objective") else ""
        )
        parts.append(f"best so far {best.candidate}{figure}")
    if metadata.finished_trial_count or metadata.running_trial_count:
        running = f", {metadata.running_trial_count} running" if metadata.running_trial_count else ""
        parts.append(f"{metadata.finished_trial_count} trials done{running}")
    return " · ".join(parts)


def _judged(metadata: translate_pb2.TrainTranslatorMetadata) -> str:
    if not metadata.evidence:
        return ""
    usable = [one for one in metadata.evidence if one.accepted]
    best = f"best so far {usable[0].method}" if usable else "none helps so far"
    return f"{best} · {len(metadata.evidence)} methods judged"


def _left(progress: report_pb2.Progress) -> str:
    if not progress.HasField("predicted_end_time") or progress.HasField("end_time"):
        return ""
    left = (progress.predicted_end_time.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).total_seconds()
    return f"about {duration(left)} left" if left > 0 else ""


def _elapsed(progress: report_pb2.Progress) -> str:
    start = progress.start_time if progress.HasField("start_time") else progress.create_time
    if not start.seconds:
        return ""
    end = progress.end_time.ToDatetime(tzinfo=UTC) if progress.HasField("end_time") else datetime.now(UTC)
    return duration(max(0.0, (end - start.ToDatetime(tzinfo=UTC)).total_seconds()))


class ProgressView:
    """Show an operation's progress while a block runs: bars on a terminal, lines elsewhere; always on standard error.

    Parameters
    ----------
    session
        The command's session.
    label
        What the operation is, in a word; empty: its name.
    """

    def __init__(self, session: Session, label: str = "") -> None:
        self._session = session
        self._label = label
        self._live: Live | None = None
        self._steps: dict[str, tuple[float, Message | None]] = {}
        self._said = ""
        self._said_at = 0.0

    def __enter__(self) -> ProgressView:
        """Begin to show."""
        if self._session.err.is_terminal:
            self._live = Live(console=self._session.err, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the last state on the screen."""
        if self._live is not None:
            self._live.stop()

    def __call__(self, handle: OperationHandle[T]) -> None:
        """Show the operation as last seen."""
        rows = self._rows(handle)
        if self._live is not None:
            self._live.update(self._table(rows))
        else:
            self._line(rows)

    def _rows(self, handle: OperationHandle[T]) -> list[Row]:
        metadata = handle.metadata
        if not isinstance(metadata, pipeline_pb2.RunPipelineMetadata) or not metadata.steps:
            return [Row(self._label or short(handle.name), handle.progress, detail_of(metadata))]
        return [Row(step.step, step.progress, detail_of(self._step(step)) or short(step.resource)) for step in metadata.steps]

    def _step(self, step: pipeline_pb2.PipelineStep) -> Message | None:
        """Give the metadata of a step's own operation, asked for now and then while it runs."""
        if not step.operation:
            return None
        asked, known = self._steps.get(step.operation, (0.0, None))
        if step.progress.state == _P.STATE_SUCCEEDED:
            # What it made says more than its last word.
            return None
        running = step.progress.state in (_P.STATE_RUNNING, _P.STATE_QUEUED)
        if running and time.monotonic() - asked > _LOOK_SECONDS:
            # Where this fails a detail less is on the screen; whoever waits for the operation hears of what is wrong.
            with contextlib.suppress(OteoApiError):
                known = self._session.client.operations.get(step.operation).metadata
            self._steps[step.operation] = (time.monotonic(), known)
        return known

    def _table(self, rows: list[Row]) -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0))
        for row in rows:
            progress = row.progress
            fraction = 1.0 if progress.state == _P.STATE_SUCCEEDED else min(1.0, max(0.0, progress.fraction))
            stage = progress.stage if progress.state == _P.STATE_RUNNING else ""
            words = [row.detail or progress.message or stage, _left(progress)]
            grid.add_row(
                _SIGNS.get(progress.state, "[dim]·[/]"),
                escape(row.label),
                ProgressBar(total=1.0, completed=fraction, width=24),
                f"{fraction:4.0%}",
                f"[dim]{_elapsed(progress)}[/]",
                escape(" · ".join(word for word in words if word)),
            )
        return grid

    def _line(self, rows: list[Row]) -> None:
        row = next((row for row in rows if row.progress.state in (_P.STATE_RUNNING, _P.STATE_CANCELLING)), None) or next(
            (row for row in reversed(rows) if row.progress.state != _P.STATE_UNSPECIFIED), rows[0]
        )
        progress = row.progress
        state = _P.State.Name(progress.state or _P.STATE_QUEUED).removeprefix("STATE_").lower()
        key = f"{row.label}{state}{progress.stage}"
        if key == self._said and time.monotonic() - self._said_at < _LINE_SECONDS:
            return
        self._said, self._said_at = key, time.monotonic()
        said = row.detail or progress.message
        stage = progress.stage if progress.state == _P.STATE_RUNNING and progress.stage not in (row.label, said) else ""
        words = [stage, said, _left(progress)]
        self._session.note(f"{row.label}: {state} {progress.fraction:.0%} {' · '.join(word for word in words if word)}".rstrip())


def follow(
    session: Session,
    handle: OperationHandle[T],
    label: str = "",
    timeout: float | None = None,
    again: str = "",
    also: Callable[[OperationHandle[T]], None] | None = None,
) -> T:
    """Wait for an operation with its progress on the screen, and give its result.

    Parameters
    ----------
    session
        The command's session.
    handle
        The operation.
    label
        What it is, in a word.
    timeout
        Seconds to wait; None: as long as it takes.
    again
        The command that takes it up again; empty: ``oteo operations wait``.
    also
        Shown the operation too, as often as the screen is; None: nobody.

    Raises
    ------
    OteoApiError
        It ended with an error, or the time was up.
    KeyboardInterrupt
        Ctrl-C, after saying how to go on.
    """
    try:
        with ProgressView(session, label) as view:

            def seen(now: OperationHandle[T]) -> None:
                view(now)
                if also is not None:
                    also(now)

            return handle.wait(timeout, on_progress=seen)
    except KeyboardInterrupt:
        session.note(f"\n{handle.name} goes on.")
        session.note(f"  take it up again:  {again or f'oteo operations wait {handle.name}'}")
        session.note(f"  cancel it:         oteo operations cancel {handle.name}")
        raise


def finish(
    session: Session,
    handle: OperationHandle[T],
    label: str,
    wait: bool,
    timeout: float | None,
    show: Callable[[T], None],
    also: Callable[[OperationHandle[T]], None] | None = None,
) -> None:
    """Wait for an operation (``also`` as in `follow`) and show its result, or, where nobody is to wait, tell its name."""
    if wait:
        show(follow(session, handle, label, timeout, also=also))
    else:
        session.show(handle.operation, f"{handle.name} has begun; `oteo operations wait {handle.name}` waits for it")
