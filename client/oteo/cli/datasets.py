"""``oteo datasets``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from oteo.cli import show
from oteo.cli.options import AllowMissing, Limit, RequestId, Task, Timeout, Wait
from oteo.cli.progress import finish
from oteo.cli.session import Session, command
from oteo.cli.words import local_path, short
from oteo.names import enum_name, source_uri
from oteo.operations import OperationHandle
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.type.v1 import task_pb2

app = typer.Typer(help="Datasets: in, looked at, out.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The dataset.")]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="class-folders, coco, pascal-voc, yolo, masks, color-masks, instance-masks, csv, numpy, hdf5, webdataset, labelme, cvat, oteo; default: found automatically.",
    ),
]
_SHOWN_FINDINGS = 20
LeaveOutText = Annotated[
    bool, typer.Option("--leave-out-burned-in-text", help="Leave DICOM images out in which text is suspected; default: a warning.")
]
KeepNames = Annotated[
    bool,
    typer.Option(
        "--keep-source-names", help="Keep the names of files beside DICOM; default: keyed hashes, as names often tell the patient."
    ),
]
SequencePattern = Annotated[
    str,
    typer.Option(
        "--sequence-pattern", help="Regular expression on the path: files with the same first group are the slices of one stack, by name."
    ),
]


def import_settings(
    *,
    source: str = "",
    name: str = "",
    dataset_id: str = "",
    task: str = "",
    classes: list[str] | None = None,
    format: str = "",
    domain: str = "",
    group_pattern: str = "",
    sequence_pattern: str = "",
    ignore_split: bool = False,
    seed: int = 0,
    validate_only: bool = False,
    request_id: str = "",
    leave_out_text: bool = False,
    keep_names: bool = False,
) -> dataset_pb2.ImportDatasetRequest:
    """Give an import's request from what stands on a command line."""
    request = dataset_pb2.ImportDatasetRequest(
        dataset_id=dataset_id,
        display_name=name,
        source_uri=source,
        format=enum_name(dataset_pb2.DatasetFormat, "DATASET_FORMAT_", format, "format"),
        task=enum_name(task_pb2.Task, "TASK_", task, "task"),
        classes=classes or [],
        domain=domain,
        validate_only=validate_only,
        request_id=request_id,
        leave_out_burned_in_text=leave_out_text,
        keep_source_names=keep_names,
    )
    if group_pattern or sequence_pattern or ignore_split or seed:
        request.split.group_pattern = group_pattern
        request.split.sequence_pattern = sequence_pattern
        request.split.ignore_source_split = ignore_split
        request.split.seed = seed
    return request


def send(session: Session, source: Path, settings: dataset_pb2.ImportDatasetRequest) -> OperationHandle[dataset_pb2.ImportDatasetResponse]:
    """Upload a folder or an archive with a bar on standard error, and give the import's operation."""
    columns = (TextColumn("uploading"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=session.err, disable=not session.err.is_terminal) as progress:
        bar = progress.add_task("uploading", total=None)
        return session.client.upload(source, lambda sent, total: progress.update(bar, completed=sent, total=total), settings)


def show_import(session: Session, response: dataset_pb2.ImportDatasetResponse) -> None:
    """Show what an import made: the dataset, and its findings one by one, the worst first."""
    dataset = response.dataset
    samples = session.client.datasets.samples(dataset.name, only_findings=True, include_excluded=True) if dataset.findings else iter(())
    found = [finding for sample in islice(samples, 2000) for finding in sample.findings]
    found.sort(key=lambda finding: -finding.severity)
    if session.as_json:
        session.document({"dataset": dataset, "findings": found})
        return
    session.show(None, show.dataset_facts(dataset))
    if found:
        more = f"; the first {_SHOWN_FINDINGS}" if len(found) > _SHOWN_FINDINGS else ""
        session.show(None, "", show.findings_table(found[:_SHOWN_FINDINGS], title=f"{len(found)} findings{more}"))
        if more:
            session.show(None, f"[dim]all: oteo datasets samples {short(dataset.name)} --findings[/]")


@command(app, "import")
def import_(
    session: Session,
    source: Annotated[str, typer.Argument(help="A folder, a zip or tar archive, or a URI, as the service sees it.")],
    name: Annotated[str, typer.Option("--name", help="A name; the dataset's id is made from it. Default: the folder's.")] = "",
    dataset_id: Annotated[str, typer.Option("--id", help="The id itself: an error where it is taken.")] = "",
    task: Task = "",
    classes: Annotated[list[str] | None, typer.Option("--class", help="A class that may occur, in order; again for more.")] = None,
    format: Format = "",
    domain: Annotated[str, typer.Option("--domain", help="Where the images come from: 'scanner A'.")] = "",
    group_pattern: Annotated[
        str, typer.Option("--group-pattern", help="Regular expression on the path: its first group is the patient or slide.")
    ] = "",
    sequence_pattern: SequencePattern = "",
    ignore_split: Annotated[bool, typer.Option("--ignore-split", help="Forget the parts that the source names.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the parting.")] = 0,
    leave_out_text: LeaveOutText = False,
    keep_names: KeepNames = False,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Check, import nothing.")] = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Import a folder, an archive or a URI that the service can read; `upload` sends one from here."""
    name = name or Path(source).name.partition(".")[0]
    settings = import_settings(
        source=source_uri(source), name=name, dataset_id=dataset_id, task=task, classes=classes, format=format, domain=domain,
        group_pattern=group_pattern, sequence_pattern=sequence_pattern, ignore_split=ignore_split, seed=seed, validate_only=validate_only, request_id=request_id,
        leave_out_text=leave_out_text, keep_names=keep_names,
    )  # fmt: skip
    finish(
        session, session.client.datasets.start_import(settings), "import", wait, timeout, lambda response: show_import(session, response)
    )


@command(app, "upload")
def upload(
    session: Session,
    source: Annotated[Path, typer.Argument(help="A folder or an archive on this machine.")],
    name: Annotated[str, typer.Option("--name", help="A name; the dataset's id is made from it. Default: the folder's.")] = "",
    dataset_id: Annotated[str, typer.Option("--id", help="The id itself: an error where it is taken.")] = "",
    task: Task = "",
    classes: Annotated[list[str] | None, typer.Option("--class", help="A class that may occur, in order; again for more.")] = None,
    format: Format = "",
    domain: Annotated[str, typer.Option("--domain", help="Where the images come from: 'scanner A'.")] = "",
    group_pattern: Annotated[
        str, typer.Option("--group-pattern", help="Regular expression on the path: its first group is the patient or slide.")
    ] = "",
    sequence_pattern: SequencePattern = "",
    leave_out_text: LeaveOutText = False,
    keep_names: KeepNames = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Send a folder or an archive of this machine through the connection and import it."""
    settings = import_settings(
        name=name or source.resolve().name.partition(".")[0], dataset_id=dataset_id, task=task, classes=classes, format=format,
        domain=domain, group_pattern=group_pattern, sequence_pattern=sequence_pattern, request_id=request_id, leave_out_text=leave_out_text, keep_names=keep_names,
    )  # fmt: skip
    finish(session, send(session, source, settings), "import", wait, timeout, lambda response: show_import(session, response))


@command(app, "list")
def list_(session: Session, limit: Limit = None) -> None:
    """List datasets, newest first."""
    found = list(session.client.datasets.list(limit))
    session.show(found, show.datasets_table(found) if found else "no datasets yet; `oteo datasets import FOLDER` makes one")


@command(app, "show")
def show_one(session: Session, name: Name) -> None:
    """Show one dataset."""
    dataset = session.client.datasets.get(name)
    session.show(dataset, show.dataset_facts(dataset))


@command(app, "samples")
def samples(
    session: Session,
    name: Name,
    split: Annotated[str, typer.Option("--split", help="Only this part: train, validation, test.")] = "",
    class_name: Annotated[str, typer.Option("--class", help="Only samples with this class.")] = "",
    finding: Annotated[str, typer.Option("--finding", help="Only samples with a finding of this code.")] = "",
    findings: Annotated[
        bool, typer.Option("--findings", help="Only samples with findings, left-out ones too; shows the findings.")
    ] = False,
    excluded: Annotated[bool, typer.Option("--excluded", help="Left-out samples too.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
) -> None:
    """List a dataset's samples with their annotations and findings."""
    found = list(
        session.client.datasets.samples(
            name,
            split=split,
            class_name=class_name,
            finding=finding,
            only_findings=findings,
            include_excluded=excluded or findings,
            limit=limit,
        )
    )
    rows = [item for sample in found for item in sample.findings] if findings else []
    session.show(found, show.findings_table(rows) if findings else show.samples_table(found))


@command(app, "delete")
def delete(session: Session, name: Name, allow_missing: AllowMissing = False) -> None:
    """Delete a dataset and its files."""
    session.client.datasets.delete(name, allow_missing=allow_missing)
    session.show({"deleted": name}, f"{name} is deleted")


@command(app, "export")
def export(
    session: Session,
    name: Name,
    format: Annotated[
        str,
        typer.Option(
            "--format",
            help="class-folders, coco, pascal-voc, yolo, masks, color-masks, instance-masks, csv, numpy, hdf5, webdataset, labelme, cvat, oteo.",
        ),
    ],
    destination: Annotated[str, typer.Option("--to", help="Folder, .zip or .tar, or URI; default: in the artifact store.")] = "",
    split: Annotated[list[str] | None, typer.Option("--split", help="Only this part: train, validation, test; again for more.")] = None,
    stacks: Annotated[bool, typer.Option("--stacks", help="Frames of a stack or clip as one TIFF file: class folders and masks.")] = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Write a dataset in an outside format, and say what the format could not hold."""
    handle = session.client.datasets.export(
        name, format=format, destination=destination, splits=split or (), stacks=stacks, request_id=request_id or None
    )

    def done(response: dataset_pb2.ExportDatasetResponse) -> None:
        session.show(
            response,
            f"{response.sample_count} samples in {response.uri}",
            *(["", show.findings_table(response.losses, title=f"lost in {format}")] if response.losses else []),
        )

    finish(session, handle, "export", wait, timeout, done)


@command(app, "audit")
def audit(
    session: Session,
    name: Name,
    check: Annotated[list[str] | None, typer.Option("--check", help="Only this check; again for more.")] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Publish a cleaned dataset too.")] = False,
    fixed_id: Annotated[str, typer.Option("--fixed-id", help="The cleaned dataset's id: an error where it is taken. Implies --fix.")] = "",
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Look for what would spoil a training: duplicates, leaks, label errors; writes a report."""
    handle = session.client.datasets.audit(
        name, checks=check or (), fix=fix or bool(fixed_id), fixed_dataset_id=fixed_id, request_id=request_id or None
    )

    def done(response: dataset_pb2.AuditDatasetResponse) -> None:
        rows = [
            ("dataset", response.dataset),
            ("findings", show.findings_count(response.counts) or "none"),
            ("report", local_path(response.report_uri)),
            ("list", local_path(response.findings_uri)),
            ("cleaned", response.fixed_dataset),
        ]
        total = sum(count.count for count in response.counts)
        shown = response.findings[:_SHOWN_FINDINGS]
        title = f"{show.plural(total, 'finding')}{f'; the worst {len(shown)}' if total > len(shown) else ''}"
        session.show(response, show.facts(rows), *(["", show.findings_table(shown, title=title)] if shown else []))

    finish(session, handle, "audit", wait, timeout, done)
