"""``oteo predict``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from oteo.cli import codes
from oteo.cli.options import Adapt
from oteo.cli.session import Session, command, table
from oteo.cli.show import answer_cells
from oteo.drawing import save_prediction
from oteo.errors import OteoApiError
from oteo_protos.gateway.v1 import inference_pb2

_AT_A_TIME = 4


def scores_of(answer: inference_pb2.PredictResponse) -> list[tuple[str, float]]:
    """Give the classes with probabilities, the likeliest first, or the objects with scores, the surest first."""
    objects = [*answer.detection.objects, *(region.annotation for region in answer.segmentation.regions)]
    found = [(item.class_name, item.score) for item in objects if item.HasField("score")]
    return [(score.class_name, score.probability) for score in answer.classification.scores] or sorted(found, key=lambda pair: -pair[1])


def boxes_of(answer: inference_pb2.PredictResponse) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Give classes and boxes (left, top, right, bottom) of the objects of a detection."""
    boxes = [(item.class_name, item.box) for item in answer.detection.objects]
    return [(name, (box.x, box.y, box.x + box.width, box.y + box.height)) for name, box in boxes]


def note_of(answer: inference_pb2.PredictResponse) -> str:
    """Give the line below a picture: the prediction set, or what was found and how often."""
    if answer.WhichOneof("result") != "classification":
        return answer_cells(answer)[0]
    result = answer.classification
    if not result.prediction_set and not result.coverage:
        return ""
    coverage = f" at {result.coverage:.0%}" if result.coverage else ""
    return f"prediction set{coverage}: {', '.join(result.prediction_set) or 'empty'}"


def notes_of(image: str, answer: inference_pb2.PredictResponse) -> list[str]:
    """Give what there is to know beside the answer, a line each."""
    return [f"{image}: {finding.message}" for finding in answer.findings]


def picture_path(save: Path, image: str, several: bool) -> Path:
    """Give where an image's picture goes: ``save`` is the file, or a folder where there are several images."""
    if not several and save.suffix:
        return save
    return save / f"{Path(image).stem}-prediction.png"


def predict(
    session: Session,
    deployment: Annotated[str, typer.Argument(help="The deployment.")],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Images: PNG, JPEG, TIFF, or samples of a dataset (datasets/…/samples/…).")
    ],
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Classes to give; 0: all.")] = 5,
    save: Annotated[Path | None, typer.Option("--save", help="Draw each answer: a file for one image, a folder for several.")] = None,
    alias: Annotated[
        str, typer.Option("--alias", help="The model that must answer, by its alias; default: by the shares of the traffic.")
    ] = "",
    adapt: Adapt = "",
    timeout: Annotated[float, typer.Option("--timeout", min=0.01, help="Deadline of each call, seconds.")] = 60.0,
) -> None:
    """Answer for images by a deployed model. One that fails does not stop the others; the exit code is then that of the first that failed."""
    client = session.client

    def one(image: str) -> inference_pb2.PredictResponse | OteoApiError:
        try:
            return client.predict(deployment, image, top_k=top_k, alias=alias, adapt=adapt, timeout=timeout)
        except OteoApiError as error:
            return error

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        answers = list(zip(images, pool.map(one, images), strict=True))
    failed = [answer for _, answer in answers if isinstance(answer, OteoApiError)]
    if failed and len(images) == 1:
        raise failed[0]
    made = table("image", "class", "probability", "prediction set", "time", right=("probability", "time"))
    documents: list[dict[str, Any]] = []
    for image, answer in answers:
        if isinstance(answer, OteoApiError):
            made.add_row(escape(image), f"[red]{escape(answer.reason or answer.code)}[/]", "", escape(answer.message), "")
            documents.append(
                {"image": image, "error": {"code": answer.code, "reason": answer.reason, "message": answer.message, "field": answer.field}}
            )
            continue
        document: dict[str, Any] = {"image": image, "response": answer}
        made.add_row(escape(image), *(escape(cell) for cell in answer_cells(answer)))
        if save is not None:
            document["picture"] = str(_save(save, image, len(images) > 1, answer))
        documents.append(document)
    pictures = [f"picture: {escape(str(item['picture']))}" for item in documents if "picture" in item]
    notes = [escape(note) for image, answer in answers if not isinstance(answer, OteoApiError) for note in notes_of(image, answer)]
    session.show(documents[0] if len(images) == 1 else documents, made, *notes, *pictures)
    if failed:
        raise typer.Exit(codes.exit_code(failed[0]))


def _save(save: Path, image: str, several: bool, answer: inference_pb2.PredictResponse) -> Path:
    path = Path(image).expanduser()
    if not path.is_file():
        raise OteoApiError("INVALID_ARGUMENT", f"{image} is not a file here, so it cannot be drawn", reason="NOTHING_TO_DRAW", field="save")
    return save_prediction(
        picture_path(save, image, several),
        path.read_bytes(),
        scores_of(answer),
        title=path.name,
        note=note_of(answer),
        boxes=boxes_of(answer),
        labels=answer.segmentation.label_image.content,
    )


def add(root: typer.Typer) -> None:
    """Add ``oteo predict``."""
    command(root, "predict")(predict)
