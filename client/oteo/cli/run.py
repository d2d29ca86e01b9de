"""``oteo run``: from a folder of images to a served prediction."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.message import Message
from rich.markup import escape

from oteo.cli import show, stack
from oteo.cli.datasets import import_settings, send
from oteo.cli.options import Task
from oteo.cli.predict import note_of, scores_of
from oteo.cli.progress import follow
from oteo.cli.session import Session, command
from oteo.cli.show_deployments import state_word
from oteo.cli.words import duration, local_file, local_path, parse_duration, seconds_of, short
from oteo.connection import find_endpoint, home
from oteo.drawing import save_prediction
from oteo.errors import OperationFailed, OteoApiError
from oteo.names import slug
from oteo.operations import OperationHandle
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.gateway.v1 import inference_pb2, pipeline_pb2

_SAMPLE_NAME = "cells"
_MOST_TRIES = 100
"""Runs of one name and data that are looked through for one that has not failed."""


@dataclass(frozen=True)
class Wanted:
    """What is to be run.

    Parameters
    ----------
    source
        Folder, archive or URI.
    name
        Name that the user gave, or that was made from the source.
    named
        True where the user gave it: another must not be chosen instead.
    task, budget
        As in `RunPipelineRequest`; budget in seconds.
    state
        Digest of the source as it is now; a changed one is another run.
    """

    source: str
    name: str
    named: bool
    task: str
    budget: float
    state: str

    def request_id(self, name: str, number: int) -> str:
        """Give the same UUID for the same run, so that a run that was interrupted is found again."""
        key = "\n".join([self.source, self.state, name, self.task, f"{self.budget:g}", str(number)])
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"oteo:run:{key}"))


def source_state(source: str) -> str:
    """Give a digest of a local source's names, sizes and times, without reading a file; empty for what is not here."""
    root = Path(source)
    if not root.exists():
        return ""
    digest = hashlib.sha256()
    for path in _files(root):
        found = path.stat()
        digest.update(f"{path.relative_to(root)}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _files(root: Path) -> Iterator[Path]:
    if root.is_file():
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file():
                yield path


def draw_sample() -> Path:
    """Draw the sample that the project brings along, once, and give its folder."""
    folder = home() / "sample" / _SAMPLE_NAME
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Drawn beside and moved, so that an interrupted drawing is not taken for the whole.
    part = folder.with_name(f".{_SAMPLE_NAME}-{os.getpid()}")
    try:
        # A program of its own: the client stands on the contract alone.
        done = subprocess.run([sys.executable, "-m", "oteo_core.sampledata", str(part)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OteoApiError(
                "FAILED_PRECONDITION",
                f"the sample cannot be drawn: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else 'oteo-core is not installed'}",
                reason="SAMPLE_FAILED",
            )
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def check_source(source: str) -> str:
    """Give the source as an absolute path, or a URI as it is; raise NOT_FOUND where it is a path and not there."""
    if "://" in source:
        return source
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise OteoApiError(
            "NOT_FOUND", f"there is no {path}; give a folder of images, an archive or a URI", reason="SOURCE_NOT_FOUND", field="source_uri"
        )
    return str(path)


def ensure_gateway(session: Session) -> None:
    """Start this machine's stack unless a gateway was named."""
    if not session.address and not os.environ.get("OTEO_ADDRESS"):
        stack.start(session)
    find_endpoint(session.address or None)


def _begin(session: Session, wanted: Wanted, name: str, number: int, upload: bool) -> OperationHandle[pipeline_pb2.RunPipelineResponse]:
    client, request_id = session.client, wanted.request_id(name, number)
    if not upload:
        return client.run_pipeline(wanted.source, budget=wanted.budget, name=name, task=wanted.task or None, request_id=request_id)
    settings = import_settings(name=name, task=wanted.task, request_id=wanted.request_id(f"upload {name}", number))
    response = follow(session, send(session, Path(wanted.source), settings), "import", again="the same command again")
    return client.run_pipeline(dataset=response.dataset.name, budget=wanted.budget, name=name, request_id=request_id)


def begin(session: Session, wanted: Wanted, new: bool) -> OperationHandle[pipeline_pb2.RunPipelineResponse]:
    """Start the pipeline, or take up the one of the same name, data and budget that runs or has succeeded.

    A run that failed or was cancelled is begun anew. Where a model has the name already and the user did not give it, a number is added.
    """
    upload = "://" not in wanted.source and not session.client.endpoint.is_local
    first = uuid.uuid4().int >> 64 if new else 0
    taken: OteoApiError | None = None
    for attempt in count(1):
        name = wanted.name if attempt == 1 else f"{wanted.name}-{attempt}"
        for number in range(first, first + _MOST_TRIES):
            try:
                handle = _begin(session, wanted, name, number, upload)
            except OteoApiError as error:
                if error.reason != "MODEL_EXISTS" or wanted.named or attempt >= _MOST_TRIES:
                    raise
                taken = error
                break
            if not handle.done or not handle.operation.HasField("error"):
                return handle
    raise taken or OteoApiError(
        "FAILED_PRECONDITION", f"{wanted.name} has failed {_MOST_TRIES} times; give another --name", reason="TOO_MANY_RUNS"
    )


@dataclass(frozen=True)
class Shown:
    """A prediction that was made as an example."""

    sample: dataset_pb2.Sample
    answer: inference_pb2.PredictResponse
    image: Path | None
    picture: Path | None

    @property
    def truth(self) -> str:
        """The sample's own class."""
        return next((a.class_name for a in self.sample.annotations if a.WhichOneof("geometry") is None), "")


def predict_one(session: Session, name: str, source: str, result: pipeline_pb2.RunPipelineResponse) -> Shown | None:
    """Predict one image of the test part through the gateway and draw the answer; None where there is no test part."""
    client = session.client
    sample = next(iter(client.datasets.samples(result.dataset.name, split="test", limit=1)), None)
    if sample is None:
        return None
    # The user's own file where it is one, else the dataset's copy where that is on this machine.
    own = Path(source, sample.source_path)
    image = own if sample.source_path and own.is_file() else local_file(f"{result.dataset.uri.rstrip('/')}/{sample.path}")
    answer = client.predict(result.deployment.name, image if image is not None else sample.name, draw=True)
    shown = Shown(sample, answer, image, None)
    called = image.name if image is not None else sample.source_path or sample.name
    title = f"{shown.truth}: {called}" if shown.truth else called
    path = home() / "runs" / name / "prediction.png"
    try:
        picture = save_prediction(path, answer.drawing.content, scores_of(answer), title=title, note=note_of(answer))
    except OteoApiError as error:
        session.note(f"no picture of the prediction: {error.message}")
        return shown
    return Shown(sample, answer, image, picture)


def report(session: Session, handle: OperationHandle[Message], result: pipeline_pb2.RunPipelineResponse, shown: Shown | None) -> None:
    """Show the end of a run: what was found, what was made, what it answers, how to call it."""
    dataset, model, deployment = result.dataset, result.model, result.deployment
    endpoint, name = session.client.endpoint, short(deployment.name)
    calls = how_to_call(session, name, shown.image if shown else None)
    if session.as_json:
        document = {
            "operation": handle.name,
            "dataset": dataset,
            "model": model,
            "deployment": deployment,
            "metrics": result.metrics,
            "report": local_path(model.report_uri),
            "package": local_path(model.package_uri),
            "gateway": endpoint.address,
        }
        if shown:
            document["prediction"] = {
                "sample": shown.sample.name,
                "image": str(shown.image) if shown.image else "",
                "truth": shown.truth,
                "response": shown.answer,
                "picture": str(shown.picture) if shown.picture else "",
            }
        session.document(document)
        return
    rows = [
        ("dataset", f"{short(dataset.name)}: {dataset.sample_count} samples ({show.splits(dataset)}), {len(dataset.classes)} classes"),
        ("duplicates", show.duplicates(dataset)),
        (
            "findings",
            (show.findings_count(dataset.findings) or "none")
            + (f"; {show.plural(dataset.excluded_count, 'file')} left out" if dataset.excluded_count else ""),
        ),
        ("model", f"{short(model.name)}: {model.candidate}, the best of {model.trial_count} trials"),
        *show.figures(model, "test "),
        ("training time", f"{duration(seconds_of(model.training_time))} of {duration(seconds_of(model.budget))}"),
        ("report", local_path(model.report_uri)),
        ("package", local_path(model.package_uri)),
        ("deployment", f"{name} ({state_word(deployment)}) at {endpoint.address}"),
    ]
    if shown:
        found, probability, likely, milliseconds = show.answer_cells(shown.answer)
        truth = f"; it is {shown.truth}" if shown.truth else ""
        likely = f"; prediction set {likely}" if likely else ""
        rows.append(("prediction", f"{shown.sample.source_path}: {found} {probability}{truth}{likely}; {milliseconds}"))
        rows.append(("picture", str(shown.picture or "")))
    session.show(None, "", show.facts(rows), "", "[bold]Call it[/]")
    for title, text in calls:
        session.show(None, f"[dim]{title}[/]")
        session.out.out(text, highlight=False)


def how_to_call(session: Session, deployment: str, image: Path | None) -> list[tuple[str, str]]:
    """Give how to call a deployment from the command line, from Python and with grpcurl."""
    address = session.client.endpoint.address
    path = os.path.normpath(image) if image else "image.png"
    shown = shlex.quote(path)
    here = not session.address and not os.environ.get("OTEO_ADDRESS")
    client = "oteo.Client()" if here else f'oteo.Client("{address}", token="…")'
    token = f"$(cat {shlex.quote(str(home() / 'token'))})" if here else "$OTEO_TOKEN"
    data = f'{{"deployment": "deployments/{deployment}", "image": {{"content": "\'$(base64 -w0 {shown})\'"}}}}'
    return [
        ("command line", f"  oteo predict {deployment} {shown}"),
        ("Python", f'  import oteo\n  print({client}.predict("{deployment}", {path!r}))'),
        (
            "grpcurl",
            f"  grpcurl -plaintext -H \"authorization: Bearer {token}\" -d '{data}' \\\n    {address} oteo.gateway.v1.InferenceService/Predict",
        ),
    ]


def run(
    session: Session,
    data: Annotated[str, typer.Argument(help="A folder of images, an archive or a URI.")] = "",
    task: Task = "",
    budget: Annotated[
        float,
        typer.Option(
            "--budget", parser=parse_duration, metavar="TIME", show_default="10m", help="Wall-clock time of the training: 4m, 1h30m, …"
        ),
    ] = 600.0,
    name: Annotated[str, typer.Option("--name", help="Name of model and deployment; default: made from the folder's.")] = "",
    sample: Annotated[bool, typer.Option("--sample", help="Run on a sample that the project draws itself.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Begin anew, even where such a run is under way or done.")] = False,
) -> None:
    """Import, train, deploy and predict: one command from a folder of images to a served model.

    Starts the stack if it is not up. The same command again takes up a run that was interrupted, and shows one that is done.
    """
    if sample == bool(data):
        raise typer.BadParameter("give a folder of images, or --sample", param_hint="DATA")
    source = str(draw_sample()) if sample else check_source(data)
    ensure_gateway(session)
    chosen = slug(name or Path(source.rstrip("/")).name.partition(".")[0])
    wanted = Wanted(source, chosen, bool(name), task, budget, source_state(source))
    handle = begin(session, wanted, new)
    if handle.done:
        session.note(f"this run is done already ({handle.name}); --new begins another")
    else:
        session.note(f"{escape(handle.name)}: {source}, {duration(budget)} of training")
    try:
        result = follow(session, handle, again="the same command again")
    except OperationFailed as error:
        error.message = f"{error.message} ({wanted.name}; the same command again begins anew)"
        raise
    shown = predict_one(session, short(result.deployment.name), source, result) if result.HasField("deployment") else None
    report(session, handle, result, shown)  # type: ignore[arg-type]


def add(root: typer.Typer) -> None:
    """Add ``oteo run``."""
    command(root, "run")(run)
