"""``oteo augment``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from google.protobuf.json_format import MessageToDict
from rich.table import Table
from typer.core import TyperGroup

from oteo.cli import show
from oteo.cli.options import RequestId, Timeout, Wait
from oteo.cli.progress import finish
from oteo.cli.session import Session, command, table
from oteo.cli.words import enum_word
from oteo.errors import OteoApiError
from oteo.names import slug
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
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")] = 0,
    drop_originals: Annotated[bool, typer.Option("--drop-originals", help="Leave the originals out of the training part.")] = False,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Publish a dataset with augmented copies of the training part."""
    handle = session.client.datasets.augment(
        name,
        copies=copies,
        dataset_id=slug(new_name) if new_name else "",
        seed=seed,
        drop_originals=drop_originals,
        request_id=request_id or None,
    )

    def done(response: augment_pb2.AugmentDatasetResponse) -> None:
        session.show(response, show.dataset_facts(response.dataset), f"{response.augmented_count} copies made")

    finish(session, handle, "augment", wait, timeout, done)


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
