"""Resources as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oteo.cli.session import table
from oteo.cli.words import duration, enum_word, local_path, metric, metric_text, moment, seconds_of, short, size
from oteo.operations import OperationHandle, progress_of
from oteo_protos.augment.v1 import dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import inference_pb2
from oteo_protos.type.v1 import report_pb2, task_pb2

_SEVERITY = report_pb2.Finding.Severity


def facts(rows: Iterable[tuple[str, str]]) -> Text:
    """Give lines of names and values; empty values are left out."""
    told = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in told), default=0)
    lines = [Text.assemble((f"{name:<{width}}  ", "dim"), value) for name, value in told]
    return Text("\n").join(lines)


def plural(count: int, one: str) -> str:
    """Give ``"1 file"`` or ``"2 files"``."""
    return f"{count} {one}" if count == 1 else f"{count} {one}s"


def task_word(task: int) -> str:
    """Give a task's name."""
    return enum_word(task_pb2.Task.Name(task), "TASK_")


def split_word(split: int) -> str:
    """Give a part's name."""
    return enum_word(task_pb2.Split.Name(split), "SPLIT_")


def splits(dataset: dataset_pb2.Dataset) -> str:
    """Give ``"train 70, validation 15, test 15"``."""
    return ", ".join(f"{split_word(part.split) or 'no part'} {part.sample_count}" for part in dataset.splits)


def findings_count(counts: Iterable[report_pb2.FindingCount]) -> str:
    """Give ``"2 ZERO_AREA_BOX, 1 UNREADABLE_IMAGE"``."""
    return ", ".join(f"{count.count} {count.code}" for count in counts)


def duplicates(dataset: dataset_pb2.Dataset) -> str:
    """Give the groups of duplicates in words."""
    return (
        f"{plural(dataset.exact_duplicate_group_count, 'group')} of exact, {dataset.near_duplicate_group_count} of exact or near duplicates"
    )


def dataset_facts(dataset: dataset_pb2.Dataset) -> Text:
    """Give one dataset."""
    classes = ", ".join(f"{item.name} {item.sample_count}" for item in dataset.classes)
    sizes = dataset.sizes
    return facts(
        [
            ("dataset", dataset.name),
            ("name", dataset.display_name),
            ("task", task_word(dataset.task)),
            ("samples", f"{dataset.sample_count} ({splits(dataset)})" if dataset.splits else str(dataset.sample_count)),
            ("left out", str(dataset.excluded_count)),
            ("classes", classes),
            ("duplicates", duplicates(dataset)),
            ("findings", findings_count(dataset.findings) or "none"),
            (
                "sizes",
                f"{sizes.min_width} x {sizes.min_height} to {sizes.max_width} x {sizes.max_height} pixels" if sizes.max_width else "",
            ),
            ("media", size(dataset.media_bytes) if dataset.media_bytes else ""),
            ("domain", dataset.domain),
            ("source", dataset.source),
            ("made", moment(dataset.create_time)),
            ("where", local_path(dataset.uri)),
            ("digest", dataset.digest),
        ]
    )


def datasets_table(datasets: Iterable[dataset_pb2.Dataset]) -> Table:
    """Give many datasets."""
    made = table("dataset", "task", "samples", "classes", "findings", "made", right=("samples", "classes", "findings"))
    for item in datasets:
        found = sum(count.count for count in item.findings)
        made.add_row(
            short(item.name), task_word(item.task), str(item.sample_count), str(len(item.classes)), str(found), moment(item.create_time)
        )
    return made


def severity_word(severity: int) -> str:
    """Give a severity's name."""
    return enum_word(_SEVERITY.Name(severity), "SEVERITY_")


def findings_table(findings: Iterable[report_pb2.Finding], title: str | None = None) -> Table:
    """Give findings one by one."""
    made = table("", "code", "file", "what", title=title)
    colours = {"error": "red", "warning": "yellow"}
    for item in findings:
        word = severity_word(item.severity)
        colour = colours.get(word, "dim")
        made.add_row(f"[{colour}]{word}[/]", item.code, escape(item.path or short(item.sample)), escape(item.message))
    return made


def samples_table(samples: Iterable[dataset_pb2.Sample]) -> Table:
    """Give samples."""
    made = table("sample", "file", "part", "size", "annotations", "findings")
    for item in samples:
        labels = [a.class_name for a in item.annotations if a.WhichOneof("geometry") is None]
        places = len(item.annotations) - len(labels)
        said = ", ".join(labels) + (f"{' and ' if labels else ''}{places} objects" if places else "")
        made.add_row(
            short(item.name),
            escape(item.source_path),
            "[red]left out[/]" if item.excluded else split_word(item.split),
            f"{item.width} x {item.height} x {item.channels}",
            escape(said),
            ", ".join(sorted({finding.code for finding in item.findings})),
        )
    return made


_FIGURES = (
    ("accuracy", "accuracy"),
    ("auroc", "AUROC"),
    ("mean_average_precision", "mean average precision"),
    ("map50_95", "mAP50-95"),
    ("map50", "mAP50"),
    ("dice", "Dice"),
    ("iou", "IoU"),
    ("pq", "PQ"),
    ("ece", "ECE"),
)
"""What is shown of a model, where it was measured; the first of them stands for it in lists."""

_PARTS = (("train_count", "train"), ("validation_count", "validation"), ("test_count", "test"))


def figures(model: automl_pb2.Model, before: str = "") -> list[tuple[str, str]]:
    """Give the figures that a model is known by, those that were measured, as rows of facts."""
    found = ((words, metric(model.metrics, name)) for name, words in _FIGURES)
    return [(f"{before}{words}", metric_text(value)) for words, value in found if value]


def model_facts(model: automl_pb2.Model) -> Text:
    """Give one model."""
    spec = model.input
    return facts(
        [
            ("model", model.name),
            ("name", model.display_name),
            ("task", task_word(model.task)),
            ("classes", ", ".join(model.classes)),
            ("dataset", model.dataset),
            ("candidate", model.candidate),
            *figures(model),
            ("input", f"{spec.width} x {spec.height} x {spec.channels}, {spec.resize}" if spec.width else ""),
            *_variants(model.variants),
            ("trials", str(model.trial_count)),
            ("time", f"{duration(seconds_of(model.training_time))} of {duration(seconds_of(model.budget))}"),
            ("made", moment(model.create_time)),
            ("report", local_path(model.report_uri)),
            ("package", local_path(model.package_uri)),
        ]
    )


def models_table(models: Iterable[automl_pb2.Model]) -> Table:
    """Give many models."""
    made = table("model", "task", "dataset", "candidate", "figure", "made")
    for item in models:
        name, words = next(((name, words) for name, words in _FIGURES if metric(item.metrics, name)), ("", ""))
        found = metric(item.metrics, name)
        made.add_row(
            short(item.name),
            task_word(item.task),
            short(item.dataset),
            escape(item.candidate),
            f"{words} {metric_text(found)}" if found else "",
            moment(item.create_time),
        )
    return made


def _variants(variants: Iterable[automl_pb2.VariantFigures]) -> Iterator[tuple[str, str]]:
    for one in variants:
        if one.variant:
            took = f"{size(one.size_bytes)}, {1000 * seconds_of(one.latency):.3g} ms an image; " if one.size_bytes else ""
            yield f"variant {enum_word(automl_pb2.ModelVariant.Name(one.variant), 'MODEL_VARIANT_')}", f"{took}{one.reason}"


def plan(given: automl_pb2.TrainingPlan) -> list[Text | Table | str]:
    """Give a training's plan: what it means to do, what it is tried on, and what is left out and why."""
    chosen = [one for one in given.candidates if not one.reason.startswith("left out: ")]
    left_out = [one for one in given.candidates if one.reason.startswith("left out: ")]
    folds = "cross-validated, " + plural(given.folds, "fold") if given.folds > 1 else "the held-out part"
    head = facts(
        [
            ("device", given.device),
            ("compared on", folds),
            (
                "images",
                ", ".join(
                    f"{words} {given.fingerprint.fields[name].number_value:.0f}"
                    for name, words in _PARTS
                    if name in given.fingerprint.fields
                ),
            ),
            ("done by", moment(given.predicted_end_time)),
        ]
    )
    made = table("candidate", "input", "batch", "epochs", "an epoch", "weights", "why", right=("input", "batch", "epochs", "an epoch"))
    for one in chosen:
        epoch = seconds_of(one.epoch_time)
        made.add_row(
            escape(one.name),
            f"{one.input_size} px" if one.input_size else "",
            str(one.batch_size) if one.batch_size else "",
            str(one.epochs) if one.epochs else "",
            (f"{1000 * epoch:.0f} ms" if epoch < 1 else duration(epoch)) + ("" if one.measured else " (a guess)") if one.epochs else "",
            escape(one.initial_weights) if one.epochs else "",
            escape(one.reason),
        )
    shown: list[Text | Table | str] = [escape(given.summary), head, made]
    if left_out:
        reasons: dict[str, list[str]] = {}
        for one in left_out:
            reasons.setdefault(one.reason.removeprefix("left out: "), []).append(one.name)
        shown.append(facts([("left out", f"{', '.join(names)}: {reason}") for reason, names in reasons.items()]))
    return shown


def trials_table(trials: Iterable[automl_pb2.Trial]) -> Table:
    """Give trials, best first, the best with the interval of their objective; milliseconds for one image, with a star on the front of quality and time."""
    made = table(
        "trial", "candidate", "state", "objective", "accuracy", "ms", "time", "message", right=("objective", "accuracy", "ms", "time")
    )
    for item in trials:
        accuracy = next((m.value for m in item.metrics if m.name == "accuracy" and not m.class_name), None)
        made.add_row(
            short(item.name),
            escape(item.candidate),
            enum_word(automl_pb2.Trial.State.Name(item.state), "STATE_"),
            _objective_text(item),
            "" if accuracy is None else f"{accuracy:.3f}",
            # A star: nothing else is both better and quicker.
            f"{1000 * seconds_of(item.latency):.3g}{'*' if item.on_front else ' '}" if item.HasField("latency") else "",
            duration(seconds_of(item.duration)),
            escape(item.message),
        )
    return made


def _objective_text(item: automl_pb2.Trial) -> str:
    if not item.HasField("objective"):
        return ""
    told = next((m for m in item.metrics if not m.class_name and m.value == item.objective and m.HasField("lower")), None)
    return f"{item.objective:.4f}" + (f" ({told.lower:.3f} to {told.upper:.3f})" if told is not None else "")


def evaluations_table(evaluations: Iterable[automl_pb2.EvaluateModelResponse]) -> Table:
    """Give evaluations, newest first, with the first figure of each."""
    made = table("model", "dataset", "images", "figure", "judged", "report", right=("images",))
    for item in evaluations:
        first = next((m for m in item.metrics if not m.class_name), None)
        made.add_row(
            short(item.model),
            short(item.dataset),
            str(item.image_count),
            f"{first.name} {metric_text(first)}" if first is not None else "",
            moment(item.create_time),
            local_path(item.report_uri),
        )
    return made


def comparison(response: automl_pb2.CompareModelsResponse) -> list[Table | Text]:
    """Give models side by side, best first, and what there is to tell of them."""
    names = list(dict.fromkeys(m.name for model in response.models for m in model.metrics))
    made = table("model", "candidate", *names, right=names)
    for model in response.models:
        by_name = {m.name: m for m in model.metrics}
        figures = [metric_text(by_name[name]) if name in by_name else "" for name in names]
        made.add_row(short(model.model), escape(model.candidate), *figures)
    told = "\n".join([response.reason, *response.sentences] if response.paired else response.sentences)
    return [made, Text(""), Text(told)]


def operation_state(handle: OperationHandle) -> str:  # type: ignore[type-arg]
    """Give an operation's state."""
    return enum_word(report_pb2.Progress.State.Name(progress_of(handle.operation).state), "STATE_")


def operations_table(handles: Iterable[OperationHandle]) -> Table:  # type: ignore[type-arg]
    """Give many operations."""
    made = table("operation", "kind", "state", "done", "stage", "begun", right=("done",))
    for handle in handles:
        progress, metadata = handle.progress, handle.metadata
        kind = metadata.DESCRIPTOR.name.removesuffix("Metadata") if metadata is not None else ""
        stage = handle.operation.error.message if handle.operation.HasField("error") else "" if handle.done else progress.stage
        made.add_row(
            short(handle.name), kind, operation_state(handle), f"{progress.fraction:.0%}", escape(stage), moment(progress.create_time)
        )
    return made


def answer_cells(answer: inference_pb2.PredictResponse) -> tuple[str, str, str, str]:
    """Give an answer in words: class, probability, prediction set, time."""
    milliseconds = f"{seconds_of(answer.timing.total) * 1000:.1f} ms"
    if answer.WhichOneof("result") != "classification":
        counts = Counter(region.class_name for region in answer.segmentation.regions) or Counter(answer.detection.counts)
        return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "nothing", "", "", milliseconds
    result = answer.classification
    if not result.scores:
        return "", "", "", milliseconds
    if result.decisions:
        likely = "{" + ", ".join(result.prediction_set) + "}" if result.coverage else ""
        chances = {score.class_name: f"{score.probability:.3f}" for score in result.scores}
        return ", ".join(result.decisions), ", ".join(chances.get(name, "") for name in result.decisions), likely, milliseconds
    best = result.scores[0]
    likely = "{" + ", ".join(result.prediction_set) + "}" + (f" at {result.coverage:.0%}" if result.coverage else "")
    return best.class_name, f"{best.probability:.3f}", likely if result.prediction_set or result.coverage else "", milliseconds
