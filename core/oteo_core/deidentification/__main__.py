"""``python -m oteo_core.deidentification SOURCE TARGET``: de-identify on this machine; what happens is told as JSON, an object a line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from google.rpc import code_pb2

from oteo_core.deidentification.folders import deidentify_folder
from oteo_core.deidentification.keys import load_key
from oteo_core.deidentification.options import Options, Rectangle
from oteo_core.errors import OteoError, from_exception


def rectangle(text: str) -> Rectangle:
    """Read X,Y,WIDTH,HEIGHT."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not X,Y,WIDTH,HEIGHT in pixels") from None
    if min(x, y) < 0 or min(width, height) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of a picture")
    return Rectangle(x, y, width, height)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m oteo_core.deidentification", description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--key-file", type=Path, default=Path(os.environ.get("OTEO_HOME", "~/.oteo")) / "deidentification.key")
    parser.add_argument("--dates", choices=("remove", "full", "modified"), default="remove")
    parser.add_argument("--blank", type=rectangle, action="append", default=[])
    for name in ("retain-uids", "retain-device", "retain-institution", "retain-patient", "clean-descriptors", "blank-suspects"):
        parser.add_argument(f"--{name}", action="store_true")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Do it; 0 where all files were written or refused for what they are, 1 where it could not be done."""
    given = _arguments(arguments)
    options = Options(
        retain_uids=given.retain_uids,
        dates=given.dates,
        retain_device=given.retain_device,
        retain_institution=given.retain_institution,
        retain_patient=given.retain_patient,
        clean_descriptors=given.clean_descriptors,
        blank=tuple(given.blank),
        blank_suspects=given.blank_suspects,
    )
    try:
        key = load_key(given.key_file)
        report = deidentify_folder(given.source, given.target, key, options, lambda done, total: _tell("progress", done=done, total=total))
    except (OteoError, OSError) as exc:
        error = from_exception(exc)
        _tell("error", code=code_pb2.Code.Name(error.code), reason=error.reason, message=error.message, field=error.field or "")
        return 1
    _tell(
        "report", written=report.written, patients=report.patients, method=report.method, codes=report.codes, refused=report.refused,
        findings=report.findings, counts=report.counts, key_file=str(given.key_file.expanduser()),
    )  # fmt: skip
    return 0


def _tell(kind: str, **values: Any) -> None:
    sys.stdout.write(json.dumps({"kind": kind, **values}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
