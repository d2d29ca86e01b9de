"""``oteo augment``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.table import Table
from typer.core import TyperGroup

from oteo.cli import codes, show
from oteo.cli.datasets import audit as audit_dataset
from oteo.cli.datasets import import_settings
from oteo.cli.options import RequestId, Task, Timeout, Wait
from oteo.cli.policy import Laterality, PolicyFile, Preset, Seed, Swap, copies_by_class, policy_message
from oteo.cli.progress import finish, follow
from oteo.cli.session import Session, command, table
from oteo.cli.words import enum_word
from oteo.errors import OteoApiError
from oteo.names import slug, source_uri
from oteo_protos.augment.v1 import augment_pb2
from oteo_protos.type.v1 import task_pb2


class DatasetOrCommand(TyperGroup):
    """Takes what is no command of the group for a dataset: ``oteo augment cells`` is ``oteo augment run cells``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before a dataset's name or an option of its own."""
        if args and args[0] not in self.commands and args[0] not in self.get_help_option_names(ctx):
            args = ["run", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=DatasetOrCommand,
    help="More images from those that there are; `oteo augment DATASET` is short for `oteo augment run DATASET`.",
    no_args_is_help=True,
)


@command(app, "run")
def run(
    session: Session,
    name: Annotated[str, typer.Argument(help="The dataset.")],
    copies: Annotated[int, typer.Option("--copies", min=0, help="Copies of each training sample; 0: the service's default.")] = 0,
    new_name: Annotated[str, typer.Option("--name", help="The new dataset's id.")] = "",
    seed: Seed = 0,
    policy: PolicyFile = None,
    preset: Preset = "",
    laterality: Laterality = False,
    mirror_swaps: Swap = None,
    copies_of: Annotated[
        list[str] | None, typer.Option("--copies-of", help="CLASS=NUMBER: so many copies of this class's samples instead; again for more.")
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="As many copies of each class as bring it near the most frequent one.")
    ] = False,
    drop_originals: Annotated[bool, typer.Option("--drop-originals", help="Leave the originals out of the training part.")] = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Publish a dataset with augmented copies of the training part."""
    by_class = session.client.datasets.balanced_copies(name) if balance else {}
    handle = session.client.datasets.augment(
        name,
        copies=copies,
        policy=policy_message(policy, preset, laterality, mirror_swaps),
        copies_by_class=by_class | copies_by_class(copies_of),
        dataset_id=slug(new_name) if new_name else "",
        seed=seed,
        drop_originals=drop_originals,
        request_id=request_id or None,
    )

    def done(response: augment_pb2.AugmentDatasetResponse) -> None:
        lost = response.dropped_annotation_count
        told = f"; {show.plural(lost, 'object')} left out of which too little was in the picture" if lost else ""
        session.show(response, show.dataset_facts(response.dataset), f"{response.augmented_count} copies made{told}")

    finish(session, handle, "augment", wait, timeout, done)


@command(app, "preview")
def preview(
    session: Session,
    name: Annotated[str, typer.Argument(help="The dataset.")],
    output: Annotated[Path, typer.Option("--output", "-o", dir_okay=False, help="Where to write the sheet, a PNG.")] = Path("preview.png"),
    policy: PolicyFile = None,
    preset: Preset = "",
    laterality: Laterality = False,
    mirror_swaps: Swap = None,
    samples: Annotated[int, typer.Option("--samples", min=1, max=64, help="Rows: samples to show.")] = 4,
    copies: Annotated[int, typer.Option("--copies", min=1, max=16, help="Columns: copies of each.")] = 4,
    seed: Seed = 0,
) -> None:
    """Show what a policy does: a sheet of pictures with the annotations drawn; nothing is published."""
    sheet = session.client.augmentations.preview(
        name, policy=policy_message(policy, preset, laterality, mirror_swaps), samples=samples, copies=copies, seed=seed
    )
    output.write_bytes(sheet)
    session.show({"path": str(output), "bytes": len(sheet)}, f"the sheet is in {output}")


@command(app, "replay")
def replay(
    session: Session,
    name: Annotated[str, typer.Argument(help="The copy: datasets/DATASET/samples/SAMPLE, or DATASET/SAMPLE.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", dir_okay=False, help="Where to write the picture that was made.")] = None,
) -> None:
    """Make one copy of an augmented dataset again, alone, and say whether it is the same; exit code 10 if it is not."""
    parts = name.split("/")
    made = session.client.augmentations.replay(name if len(parts) != 2 else f"datasets/{parts[0]}/samples/{parts[1]}")
    if output is not None:
        output.write_bytes(made.image.content)
    steps = MessageToDict(made.sample.provenance).get("steps", [])
    rows = [
        ("made from", made.sample.derived_from.rpartition("/")[2]),
        ("steps", ", ".join(step["transform"] for step in steps) or "none"),
        ("SHA-256", made.sample.sha256),
        ("the same", "yes" if made.same else "NO: the dataset holds another file or other annotations"),
        ("written to", str(output or "")),
    ]
    answer = {"sample": MessageToDict(made.sample), "same": made.same}
    session.show(answer, show.facts([(word, value) for word, value in rows if value]))
    if not made.same:
        raise typer.Exit(codes.FAILED)


@command(app, "convert")
def convert(
    session: Session,
    source: Annotated[str, typer.Argument(help="A folder, an archive or a URI as the service sees it, or a dataset.")],
    destination: Annotated[str, typer.Argument(help="Folder, .zip or .tar, or URI.")],
    format: Annotated[str, typer.Option("--to", help="The outside format to write: coco, yolo, pascal-voc, masks, …")],
    source_format: Annotated[str, typer.Option("--from", help="The format of the source; default: found automatically.")] = "",
    task: Task = "",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the dataset that lies between.")] = False,
    timeout: Timeout = None,
) -> None:
    """Bring annotated images from one format to another, checked on the way, and say what the format could not hold."""
    datasets = session.client.datasets
    if "/" in source.removeprefix("datasets/") or Path(source).exists():
        stem = Path(source).name.partition(".")[0]
        settings = import_settings(source=source_uri(source), name=f"{stem} converted", format=source_format, task=task)
        made = follow(session, datasets.start_import(settings), "import", timeout).dataset
        name, between = made.name, True
    else:
        name, between = source, False
    try:
        response = follow(session, datasets.export(name, format=format, destination=destination), "export", timeout)
    finally:
        if between and not keep:
            datasets.delete(name, allow_missing=True)
    lost = ["", show.findings_table(response.losses, title=f"lost in {format}")] if response.losses else []
    session.show(response, f"{response.sample_count} samples in {response.uri}", *lost)


command(app, "audit")(audit_dataset)


@command(app, "transforms")
def transforms(
    session: Session,
    name: Annotated[str, typer.Argument(help="Only this one, with its parameters; its name or an alias.")] = "",
    task: Annotated[str, typer.Option("--task", help="Only those that keep annotations of this task: detection, …")] = "",
) -> None:
    """List the transforms that a policy may use, or show one with its parameters."""
    found = list(session.client.augmentations.transforms(task=task or None))
    if not name:
        session.show(found, _transforms_table(found))
        return
    one = _named(found, name, task)
    session.show(one, _facts(one), *([_parameters_table(one)] if _properties(one) else []))


command(app, "catalogue")(transforms)


def _named(found: Iterable[augment_pb2.Transform], name: str, task: str) -> augment_pb2.Transform:
    by_name = {known: one for one in found for known in (one.name, *one.aliases)}
    if name in by_name:
        return by_name[name]
    # Only the case may be wrong, but "Resize" and "resize" may both be names.
    alike = difflib.get_close_matches(name.lower(), [known.lower() for known in by_name], n=3)
    near = sorted({one.name for known, one in by_name.items() if known.lower() in alike})
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `oteo augment transforms` lists them"
    where = f" for {task.replace('_', ' ')}" if task else ""
    raise OteoApiError("NOT_FOUND", f"there is no transform {name}{where}{hint}", reason="UNKNOWN_TRANSFORM", field="name")


def _transforms_table(found: Iterable[augment_pb2.Transform]) -> Table:
    made = table("transform", "other names", "moves pixels", "pixels", "channels", "what it does")
    for one in found:
        moves = "mirrors" if one.mirrors else "moves" if one.geometric else ""
        made.add_row(one.name, ", ".join(one.aliases), moves, _pixels(one), _channels(one), one.description)
    return made


def _facts(one: augment_pb2.Transform) -> Any:
    return show.facts(
        [
            ("transform", one.name),
            ("other names", ", ".join(one.aliases)),
            ("what it does", one.description),
            ("moves pixels", "yes, and mirrors" if one.mirrors else "yes" if one.geometric else "no"),
            ("keeps right", ", ".join(enum_word(task_pb2.Task.Name(task), "TASK_") for task in one.tasks)),
            ("pixels", _pixels(one)),
            ("channels", _channels(one)),
            ("engines", ", ".join(one.engines)),
        ]
    )


def _parameters_table(one: augment_pb2.Transform) -> Table:
    made = table("parameter", "default", "allowed", "what it is")
    for name, schema in _properties(one).items():
        made.add_row(name, _value(schema["default"]), _allowed(schema), schema["description"])
    return made


def _properties(one: augment_pb2.Transform) -> dict[str, Any]:
    return dict(MessageToDict(one.parameters_schema).get("properties", {}))


def _allowed(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(schema["enum"])
    numbers = schema.get("items", schema)
    low, high = numbers.get("minimum"), numbers.get("maximum")
    if low is not None and high is not None:
        return f"{_value(low)} to {_value(high)}"
    return f"{_value(low)} or more" if low is not None else f"{_value(high)} or less" if high is not None else ""


def _value(value: Any) -> str:
    if isinstance(value, list):
        # Rich would take square brackets for markup.
        return f"{_value(value[0])} … {_value(value[1])}"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


def _pixels(one: augment_pb2.Transform) -> str:
    return ", ".join(enum_word(task_pb2.PixelType.Name(kind), "PIXEL_TYPE_") for kind in one.pixel_types)


def _channels(one: augment_pb2.Transform) -> str:
    if not one.max_channels:
        return f"{one.min_channels} or more" if one.min_channels > 1 else "any"
    return str(one.max_channels) if one.min_channels == one.max_channels else f"{one.min_channels} to {one.max_channels}"
