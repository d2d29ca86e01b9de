"""An augmentation policy from what stands on a command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.json_format import ParseDict, ParseError

from oteo.errors import OteoApiError
from oteo_protos.augment.v1 import augment_pb2

PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        exists=True,
        dir_okay=False,
        help="JSON file of an AugmentationPolicy: "
        '{"steps": [{"transform": "HorizontalFlip", "probability": 0.5}], "mode": "MODE_SEQUENTIAL"}. Default: the task\'s own.',
    ),
]
Preset = Annotated[str, typer.Option("--preset", help="A named policy: default, orientation-free, h-and-e, x-ray, ct, mr, fundus, …")]
Laterality = Annotated[bool, typer.Option("--laterality", help="Left and right mean something: no mirrors.")]
Swap = Annotated[
    list[str] | None,
    typer.Option(
        "--mirror-swaps", help="LEFT=RIGHT: classes that a mirror changes into each other, so that mirrors may be; again for more."
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same bytes.")]


def policy_message(
    file: Path | None, preset: str, laterality: bool, swaps: list[str] | None = None
) -> augment_pb2.AugmentationPolicy | None:
    """Give the policy of a command line; None where it says nothing, which is the default policy.

    Raises
    ------
    OteoApiError
        BAD_POLICY for a file that holds none, and for a swap that is no pair.
    """
    message = augment_pb2.AugmentationPolicy()
    if file is not None:
        try:
            ParseDict(json.loads(file.read_text(encoding="utf-8")), message)
        except (ValueError, ParseError) as error:
            raise OteoApiError("INVALID_ARGUMENT", f"{file} holds no policy: {error}", reason="BAD_POLICY", field="policy") from error
    if preset:
        message.preset = preset
    message.laterality = message.laterality or laterality
    for pair in swaps or []:
        left, equals, right = pair.partition("=")
        if not (left and equals and right):
            raise OteoApiError("INVALID_ARGUMENT", f"--mirror-swaps {pair}: give LEFT=RIGHT", reason="BAD_POLICY", field="policy")
        message.mirror_swaps[left] = right
    return message if message.ByteSize() else None


def copies_by_class(given: list[str] | None) -> dict[str, int]:
    """Read CLASS=COPIES pairs.

    Raises
    ------
    OteoApiError
        BAD_PARAMETER for what is no such pair.
    """
    found: dict[str, int] = {}
    for pair in given or []:
        name, _, number = pair.rpartition("=")
        if not (name and number.isdecimal()):
            raise OteoApiError(
                "INVALID_ARGUMENT", f"--copies-of {pair}: give CLASS=NUMBER", reason="BAD_PARAMETER", field="copies_by_class"
            )
        found[name] = int(number)
    return found
