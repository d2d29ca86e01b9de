"""``oteo train`` and ``oteo models``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import typer

from oteo.cli import show
from oteo.cli.options import AllowMissing, Budget, Limit, RequestId, Task, Timeout, Wait
from oteo.cli.progress import finish
from oteo.cli.session import Session, command
from oteo.cli.words import local_path, metric_text, parse_duration
from oteo.names import slug
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.type.v1 import report_pb2

app = typer.Typer(help="Models: what was trained.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(help="The model.")]


def read_pair(text: str, option: str) -> tuple[str, str]:
    """Read ``key=value``."""
    key, mark, value = text.partition("=")
    if not mark or not key.strip():
        raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint=option)
    return key.strip(), value.strip()


def read_checkpoint(text: str) -> automl_pb2.Checkpoint:
    """Read ``FILE,architecture=resnet18,name=theirs,classes=a;b``."""
    uri, *rest = text.split(",")
    made = automl_pb2.Checkpoint(uri=uri)
    for part in rest:
        key, value = read_pair(part, "--checkpoint")
        if key == "classes":
            made.classes.extend(name.strip() for name in value.split(";"))
        elif key in ("architecture", "name"):
            setattr(made, key, value)
        else:
            raise typer.BadParameter(f"{key!r} is none of architecture, name, classes", param_hint="--checkpoint")
    return made


def read_point(text: str) -> automl_pb2.OperatingPointRequest:
    """Read ``CLASS:sensitivity=0.95``; the class may hold colons."""
    name, mark, target = text.rpartition(":")
    key, value = read_pair(target, "--point") if mark else ("", "")
    if key not in ("sensitivity", "specificity"):
        raise typer.BadParameter(f"{text!r} is not CLASS:sensitivity=X or CLASS:specificity=X", param_hint="--point")
    try:
        share = float(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not a number from 0 to 1", param_hint="--point") from None
    made = automl_pb2.OperatingPointRequest(class_name=name)
    setattr(made, key, share)
    return made


def train(
    session: Session,
    dataset: Annotated[str, typer.Argument(help="The dataset.")],
    budget: Budget,
    name: Annotated[str, typer.Option("--name", help="The model's id; default: made from the dataset's.")] = "",
    task: Task = "",
    objective: Annotated[
        str,
        typer.Option(
            "--objective",
            help="What to choose by: log_loss, auroc, balanced_accuracy, accuracy, f1, mean_average_precision, map50_95, map50, dice, iou, pq.",
        ),
    ] = "",
    candidate: Annotated[list[str] | None, typer.Option("--candidate", help="Try only this; again for more.")] = None,
    pretrained: Annotated[
        str,
        typer.Option("--pretrained", help="Folder or URI of pretrained weights, or hub:; #NAME@DIGEST at its end picks and checks them."),
    ] = "",
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE,architecture=…",
            help="A network trained elsewhere, to try as it is and train further; more after commas: architecture=resnet18, name=…, "
            "classes=a;b;c. Again for more.",
        ),
    ] = None,
    max_latency: Annotated[
        float | None,
        typer.Option("--max-latency", parser=parse_duration, metavar="TIME", help="Longest time of one image at inference: 20ms, 1s, …"),
    ] = None,
    coverage: Annotated[
        float, typer.Option("--coverage", help="Share of cases whose true class the prediction set must hold: 0.5 to 0.999; default 0.9.")
    ] = 0.0,
    point: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="CLASS:sensitivity=X", help="A threshold to find, by sensitivity or specificity; again for more."),
    ] = None,
    unlabelled: Annotated[str, typer.Option("--unlabelled", help="A dataset of images without annotations to learn from too.")] = "",
    variant: Annotated[
        list[str] | None, typer.Option("--variant", help="bf16, int8 or fp16: make this form beside the model; again for more.")
    ] = None,
    max_variant_loss: Annotated[
        float, typer.Option("--max-variant-loss", help="What a variant may lose of the objective; default 0.01.")
    ] = 0.0,
    label: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A free word; again for more.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every draw.")] = 0,
    validate_only: Annotated[bool, typer.Option("--dry-run", "--validate-only", help="Measure and plan, train nothing.")] = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Train the best model that the budget allows."""
    handle = session.client.models.train(
        dataset,
        budget=budget,
        name=name,
        model_id=slug(name) if name else "",
        task=task,
        objective=objective,
        candidates=candidate or (),
        pretrained_uri=pretrained,
        checkpoints=[read_checkpoint(text) for text in checkpoint or ()],
        max_latency=max_latency,
        conformal_coverage=coverage,
        operating_points=[read_point(text) for text in point or ()],
        unlabelled_dataset=unlabelled,
        variants=variant or (),
        max_variant_loss=max_variant_loss,
        labels=dict(read_pair(text, "--label") for text in label or ()),
        seed=seed,
        validate_only=validate_only,
        request_id=request_id or None,
    )

    def done(response: automl_pb2.TrainModelResponse) -> None:
        if response.HasField("model"):
            session.show(response, show.model_facts(response.model))
        else:
            session.show(response, *show.plan(response.plan))

    finish(session, handle, "train", wait, timeout, done)


@command(app, "list")
def list_(session: Session, limit: Limit = None) -> None:
    """List models, newest first."""
    found = list(session.client.models.list(limit))
    session.show(found, show.models_table(found) if found else "no models yet; `oteo train DATASET --budget 10m` makes one")


@command(app, "show")
def show_one(session: Session, name: Name) -> None:
    """Show one model."""
    model = session.client.models.get(name)
    session.show(model, show.model_facts(model))


@command(app, "trials")
def trials(
    session: Session,
    name: Annotated[str, typer.Argument(help="The model, or a running training's operations/….")],
    limit: Limit = None,
) -> None:
    """List what was tried for a model or by a running training, best first."""
    found = list(session.client.models.trials(name, limit))
    session.show(found, show.trials_table(found))


@command(app, "evaluate")
def evaluate(
    session: Session,
    name: Name,
    dataset: Annotated[str, typer.Argument(help="The dataset.")],
    split: Annotated[list[str] | None, typer.Option("--split", help="Only this part; again for more; default: test.")] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", help="Tell apart by source-folder, group, sequence, image-size, class, …; default: what the data tells apart."
        ),
    ] = None,
    form: Annotated[list[str] | None, typer.Option("--predictions", help="csv, coco or voc; again for more; default: csv.")] = None,
    leave_out: Annotated[bool, typer.Option("--leave-out-unknown", help="Judge without classes that the model does not know.")] = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Judge a model on a dataset."""
    handle = session.client.models.evaluate(
        name,
        dataset,
        splits=split or (),
        subgroups=by or (),
        formats=form or (),
        leave_out_unknown_classes=leave_out,
        request_id=request_id or None,
    )

    def done(response: automl_pb2.EvaluateModelResponse) -> None:
        rows = _figures(response.metrics)
        rows += [(f"predictions, {_form(file)}", local_path(file.uri)) for file in response.predictions]
        notes = [finding.message for finding in response.findings]
        session.show(response, show.facts([*rows, ("report", local_path(response.report_uri))]), *notes)

    finish(session, handle, "evaluate", wait, timeout, done)


@command(app, "evaluations")
def evaluations(
    session: Session,
    name: Annotated[str, typer.Argument(help="Only those of this model.")] = "",
    dataset: Annotated[str, typer.Option("--dataset", help="Only those on this dataset.")] = "",
    limit: Limit = None,
) -> None:
    """List how models were judged, newest first."""
    found = list(session.client.models.evaluations(name, dataset=dataset, limit=limit))
    nothing = "nothing was judged yet; `oteo models evaluate MODEL DATASET` does"
    session.show(found, show.evaluations_table(found) if found else nothing)


@command(app, "combine")
def combine(
    session: Session,
    predictions: Annotated[list[str], typer.Argument(help="Prediction files of two or more detectors, as evaluate names them.")],
    method: Annotated[str, typer.Option("--method", help="affirmative, consensus, unanimous, weighted-box-fusion.")] = "consensus",
    weight: Annotated[list[float] | None, typer.Option("--weight", help="Of each file in weighted box fusion, in their order.")] = None,
    iou: Annotated[float, typer.Option("--iou", min=0, max=0.99, help="Overlap from which boxes are of one object; 0: the usual.")] = 0.0,
    threshold: Annotated[float, typer.Option("--threshold", min=0, max=1, help="Objects below this score take no part.")] = 0.0,
    dataset: Annotated[str, typer.Option("--dataset", help="Judge result and inputs on it.")] = "",
    form: Annotated[list[str] | None, typer.Option("--predictions", help="csv, coco or voc; again for more; default: csv.")] = None,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Make one set of objects of what several detectors found."""
    handle = session.client.models.combine(
        predictions,
        method,
        weights=weight or (),
        iou=iou,
        score_threshold=threshold,
        dataset=dataset,
        formats=form or (),
        request_id=request_id or None,
    )

    def done(response: automl_pb2.CombinePredictionsResponse) -> None:
        rows = [("images", f"{response.image_count}"), ("objects", f"{response.object_count}"), *_figures(response.metrics)]
        rows += [(f"predictions, {_form(file)}", local_path(file.uri)) for file in response.predictions]
        session.show(response, show.facts(rows))

    finish(session, handle, "combine", wait, timeout, done)


def _figures(metrics: Iterable[report_pb2.Metric]) -> list[tuple[str, str]]:
    return [(m.name + (f" of {m.class_name}" if m.class_name else ""), metric_text(m)) for m in metrics]


def _form(file: automl_pb2.PredictionFile) -> str:
    return automl_pb2.PredictionFormat.Name(file.format).removeprefix("PREDICTION_FORMAT_").lower()


@command(app, "delete")
def delete(session: Session, name: Name, allow_missing: AllowMissing = False) -> None:
    """Delete a model and its package."""
    session.client.models.delete(name, allow_missing=allow_missing)
    session.show({"deleted": name}, f"{name} is deleted")


@command(app, "export")
def export(
    session: Session,
    name: Name,
    destination: Annotated[str, typer.Argument(help="Folder or URI; default: in the artifact store.")] = "",
    format: Annotated[str, typer.Option("--format", help="onnx, torchscript, pytorch, triton, mlflow.")] = "onnx",
    variant: Annotated[
        str, typer.Option("--variant", help="bf16, int8 or fp16 in the model's place, where its training has kept one.")
    ] = "",
    tensorrt: Annotated[bool, typer.Option("--tensorrt", help="For triton: TensorRT on GPUs.")] = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Write a model in another form."""
    handle = session.client.models.export(
        name, format=format, destination=destination, variant=variant, tensorrt=tensorrt, request_id=request_id or None
    )
    finish(session, handle, "export", wait, timeout, lambda response: session.show(response, local_path(response.uri)))


@command(app, "compare")
def compare(
    session: Session,
    names: Annotated[list[str], typer.Argument(help="The models, two or more.")],
    metric: Annotated[str, typer.Option("--metric", help="What decides; default: what they were chosen by.")] = "",
) -> None:
    """Say which of several models is better, and whether that is more than chance."""
    response = session.client.models.compare(names, metric=metric)
    session.show(response, *show.comparison(response))


def add(root: typer.Typer) -> None:
    """Add ``oteo train``."""
    command(root, "train")(train)
