"""``oteo predict``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from oteo.cli import codes
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


def note_of(answer: inference_pb2.PredictResponse) -> str:
    """Give the line below a picture: the prediction set, or what was found and how often."""
    if answer.WhichOneof("result") != "classification":
        return answer_cells(answer)[0]
    result = answer.classification
    if not result.prediction_set and not result.coverage:
        return ""
    coverage = f" at {result.coverage:.0%}" if result.coverage else ""
    return f"prediction set{coverage}: {', '.join(result.prediction_set) or 'empty'}"


def picture_path(save: Path, image: str, several: bool) -> Path:
    """Give where an image's picture goes: ``save`` is the file, or a folder where there are several images."""
    if not several and save.suffix:
        return save
    return save / f"{Path(image).stem}-prediction.png"


def predict(
    session: Session,
    deployment: Annotated[str, typer.Argument(help="The deployment.")],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Images: PNG, JPEG, TIFF, DICOM, or samples of a dataset (datasets/…/samples/…)."),
    ],
    top_k: Annotated[int, typer.Option("--top-k", min=0, help="Classes to give; 0: all.")] = 5,
    save: Annotated[Path | None, typer.Option("--save", help="Draw each answer: a file for one image, a folder for several.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Ask what a classifier looked at; with --save it is drawn as heat.")] = False,
    point: Annotated[
        str, typer.Option("--operating-point", help="Threshold to decide by, as the model's report names it: youden, sensitivity>=0.95.")
    ] = "",
    threshold: Annotated[
        float | None, typer.Option("--threshold", min=0.0, max=1.0, help="Least score of objects; default: the model's own.")
    ] = None,
    frame: Annotated[int | None, typer.Option("--frame", min=0, help="Frame or page of each file, from 0; default: the first.")] = None,
    tiles: Annotated[
        bool | None, typer.Option("--tiles/--no-tiles", help="Look at large images piece by piece, at the scale of the training.")
    ] = None,
    masks: Annotated[str | None, typer.Option("--masks", help="How masks are given: run-lengths, polygons or none.")] = None,
    alias: Annotated[str, typer.Option("--alias", help="The model that must answer, by its alias: champion, challenger.")] = "",
    adapt: Annotated[
        str | None, typer.Option("--adapt", help="Translate to the model's domain first: off, suggest or auto; default: the deployment's.")
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.01, help="Deadline of each call, seconds.")] = 60.0,
) -> None:
    """Answer for images by a deployed model. One that fails does not stop the others; the exit code is then that of the first that failed."""
    client = session.client

    def one(image: str) -> inference_pb2.PredictResponse | OteoApiError:
        try:
            return client.predict(
                deployment,
                image,
                timeout=timeout,
                top_k=top_k,
                explain=explain,
                draw=save is not None,
                operating_point=point,
                score_threshold=threshold,
                frame=frame,
                tiling=tiles,
                masks=masks,
                alias=alias,
                adapt=adapt,
            )
        except OteoApiError as error:
            return error

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        answers = list(zip(images, pool.map(one, images), strict=True))
    failed = [answer for _, answer in answers if isinstance(answer, OteoApiError)]
    if failed and len(images) == 1:
        raise failed[0]
    made = table("image", "class", "probability", "prediction set", "time", right=("probability", "time"))
    documents: list[dict[str, Any]] = []
    lines: list[str] = []
    for image, answer in answers:
        if isinstance(answer, OteoApiError):
            made.add_row(escape(image), f"[red]{escape(answer.reason or answer.code)}[/]", "", escape(answer.message), "")
            documents.append(
                {"image": image, "error": {"code": answer.code, "reason": answer.reason, "message": answer.message, "field": answer.field}}
            )
            continue
        document: dict[str, Any] = {"image": image, "response": answer}
        made.add_row(escape(image), *(escape(cell) for cell in answer_cells(answer)))
        lines += [f"{escape(image)}: {escape(finding.message)}" for finding in answer.findings]
        if answer.translator:
            lines.append(f"{escape(image)}: translated first by {escape(answer.translator)}")
        if save is not None:
            document["picture"] = str(_save(save, image, len(images) > 1, answer))
            # It lies in the file; in a document it would be an unreadable mass of letters.
            answer.ClearField("drawing")
        documents.append(document)
    lines += [f"picture: {escape(str(item['picture']))}" for item in documents if "picture" in item]
    session.show(documents[0] if len(images) == 1 else documents, made, *lines)
    if failed:
        raise typer.Exit(codes.exit_code(failed[0]))


def _save(save: Path, image: str, several: bool, answer: inference_pb2.PredictResponse) -> Path:
    path = picture_path(save, image, several)
    return save_prediction(path, answer.drawing.content, scores_of(answer), title=Path(image).name, note=note_of(answer))


def add(root: typer.Typer) -> None:
    """Add ``oteo predict``."""
    command(root, "predict")(predict)
