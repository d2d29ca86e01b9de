"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from oteo.cli.words import parse_duration

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end, or print the operation at once.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout", parser=parse_duration, metavar="TIME", help="Wait no longer; the operation goes on.")
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")]
RequestId = Annotated[str, typer.Option("--request-id", help="A UUID; the same twice gives the first operation.")]
AllowMissing = Annotated[bool, typer.Option("--allow-missing", help="No error where there is none.")]
Task = Annotated[str, typer.Option("--task", help="classification, detection, …; default: read from the annotations.")]
Budget = Annotated[
    float, typer.Option("--budget", parser=parse_duration, metavar="TIME", help="Wall-clock time of the training: 4m, 1h30m, …")
]
Adapt = Annotated[
    str,
    typer.Option(
        "--adapt",
        metavar="off|suggest|auto",
        help="Whether images that look unlike the training images are translated first, by an accepted translator.",
    ),
]
