"""``oteo correct`` and ``oteo corrections``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.markup import escape
from rich.table import Table

from oteo.cli.options import Limit, RequestId
from oteo.cli.session import Session, command, table
from oteo.cli.show import facts
from oteo.cli.words import moment, short
from oteo.corrections import confirmed
from oteo.errors import OteoApiError
from oteo_protos.gateway.v1 import feedback_pb2, inference_pb2
from oteo_protos.type.v1 import annotation_pb2

_Message = TypeVar("_Message", bound=Message)

app = typer.Typer(help="Corrections: what readers said of answers.", no_args_is_help=True)


def correct(
    session: Session,
    deployment: Annotated[str, typer.Argument(help="The deployment.")],
    image: Annotated[str, typer.Argument(help="The image: PNG, JPEG, TIFF, or a sample of a dataset (datasets/…/samples/…).")],
    classes: Annotated[list[str] | None, typer.Option("--class", help="What is right: the image's class; again for several.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="What is right, as JSON: a list of annotations as `oteo predict --json` gives them.")
    ] = None,
    right: Annotated[bool, typer.Option("--right", help="The answer is right as it is.")] = False,
    nothing: Annotated[bool, typer.Option("--nothing", help="Nothing of the model's classes is there.")] = False,
    answer: Annotated[
        Path | None,
        typer.Option("--answer", help="The answer that is corrected (`oteo predict --json`); default: the deployment is asked again."),
    ] = None,
    consent: Annotated[bool, typer.Option("--consent", help="The image may be kept for training, as a labelled sample.")] = False,
    group: Annotated[str, typer.Option("--group", help="Patient, study or slide; a keyed hash of it is kept.")] = "",
    request_id: RequestId = "",
) -> None:
    """Say what is right of an image that was answered. Say so of right answers too (--right), or the accuracy in use is that of the doubtful ones."""
    if sum([bool(classes), file is not None, right, nothing]) != 1:
        raise OteoApiError(
            "INVALID_ARGUMENT", "say what is right by one of --class, --file, --right or --nothing", reason="NOTHING_SAID", field="class"
        )
    given = session.client.predict(deployment, image) if answer is None else read_answer(answer)
    said: list[Any] = list(classes or [])
    if file is not None:
        said = read_annotations(file)
    elif right:
        said = list(confirmed(given))
    made = session.client.corrections.submit(
        given, said, image=image if consent else None, consent=consent, group=group, request_id=request_id or None
    )
    session.show(made, correction_facts(made))


@command(app, "list")
def list_(session: Session, deployment: Annotated[str, typer.Argument(help="The deployment.")], limit: Limit = None) -> None:
    """List a deployment's corrections, newest first."""
    found = list(session.client.corrections.list(deployment, limit))
    session.show(found, corrections_table(found) if found else "no corrections yet; `oteo correct DEPLOYMENT IMAGE --class …` makes one")


@command(app, "show")
def show_one(session: Session, name: Annotated[str, typer.Argument(help="deployments/…/corrections/…")]) -> None:
    """Show one correction."""
    found = session.client.corrections.get(name)
    session.show(found, correction_facts(found))


def read_answer(path: Path) -> inference_pb2.PredictResponse:
    """Read an answer from a file of ``oteo predict --json``."""
    document = _document(path, "answer")
    if isinstance(document, dict):
        document = document.get("response", document)
    return _parsed(document, inference_pb2.PredictResponse(), path, "answer")


def read_annotations(path: Path) -> list[annotation_pb2.Annotation]:
    """Read a list of annotations, or an object that has one as ``annotations`` or ``objects``."""
    document = _document(path, "file")
    if isinstance(document, dict):
        document = document.get("annotations", document.get("objects"))
    if not isinstance(document, list):
        raise OteoApiError("INVALID_ARGUMENT", f"{path} holds no list of annotations", reason="BAD_ANNOTATIONS", field="file")
    return [_parsed(item, annotation_pb2.Annotation(), path, "file") for item in document]


def _document(path: Path, field: str) -> Any:
    try:
        return json.loads(path.expanduser().read_text())
    except OSError as error:
        raise OteoApiError("NOT_FOUND", f"cannot read {path}: {error.strerror}", reason="FILE_NOT_FOUND", field=field) from None
    except ValueError as error:
        raise OteoApiError("INVALID_ARGUMENT", f"{path} is no JSON: {error}", reason="BAD_ANNOTATIONS", field=field) from None


def _parsed(document: Any, message: _Message, path: Path, field: str) -> _Message:
    try:
        return json_format.ParseDict(document, message)
    except json_format.ParseError as error:
        raise OteoApiError("INVALID_ARGUMENT", f"{path}: {error}", reason="BAD_ANNOTATIONS", field=field) from None


def classes_of(correction: feedback_pb2.Correction) -> str:
    """Give the classes of a correction, each with its number where there are several."""
    names: dict[str, int] = {}
    for item in correction.annotations:
        names[item.class_name] = names.get(item.class_name, 0) + 1
    return ", ".join(name if count == 1 else f"{name} {count}" for name, count in names.items()) or "nothing"


def correction_facts(correction: feedback_pb2.Correction) -> Any:
    """Give one correction."""
    return facts(
        [
            ("correction", correction.name),
            ("model", short(correction.model)),
            ("right is", classes_of(correction)),
            ("agreement", f"{correction.agreement:.3f}"),
            ("sample", correction.sample or "none: without consent the image is not kept"),
            *(("look at", f"{finding.code}: {finding.message}") for finding in correction.findings),
            ("made", moment(correction.create_time)),
        ]
    )


def corrections_table(corrections: list[feedback_pb2.Correction]) -> Table:
    """Give many corrections."""
    made = table("correction", "model", "right is", "agreement", "sample", "made", right=("agreement",))
    for one in corrections:
        cells = (
            short(one.name),
            short(one.model),
            escape(classes_of(one)),
            f"{one.agreement:.3f}",
            short(one.sample),
            moment(one.create_time),
        )
        made.add_row(*cells)
    return made


def add(root: typer.Typer) -> None:
    """Add ``oteo correct`` and ``oteo corrections``."""
    command(root, "correct")(correct)
    root.add_typer(app, name="corrections")
