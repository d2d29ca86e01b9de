"""Figures and names as a person reads and writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC
from pathlib import Path
from urllib.parse import unquote, urlsplit

import typer
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from oteo_protos.type.v1 import report_pb2

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|)")


def parse_duration(text: str | float) -> float:
    """Give the seconds of ``"90"``, ``"20ms"``, ``"30s"``, ``"4m"``, ``"1h30m"`` or ``"2d"``.

    Raises
    ------
    typer.BadParameter
        It is none of these.
    """
    if isinstance(text, int | float):
        # A default comes through here too.
        return float(text)
    plain = text.strip().lower()
    if not re.fullmatch(rf"(?:{_PART.pattern})+", plain):
        raise typer.BadParameter(f"{text!r} is not a time; write 90, 30s, 4m, 1h30m or 2d")
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(plain))


def duration(seconds: float) -> str:
    """Give a time such as ``"45 s"``, ``"3 min 20 s"``, ``"2 h 5 min"``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def seconds_of(value: Duration) -> float:
    """Give a protobuf duration in seconds."""
    return value.ToNanoseconds() / 1e9


def moment(value: Timestamp) -> str:
    """Give a date and time, local; empty where it is not set."""
    if not value.seconds:
        return ""
    return value.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def short(name: str) -> str:
    """Give the last part of a resource name."""
    return name.rsplit("/", 1)[-1]


def enum_word(name: str, prefix: str) -> str:
    """Give ``"semantic segmentation"`` of ``"TASK_SEMANTIC_SEGMENTATION"``."""
    word = name.removeprefix(prefix).lower().replace("_", " ")
    return "" if word == "unspecified" else word


def metric(metrics: Iterable[report_pb2.Metric], name: str, split: str = "test") -> report_pb2.Metric | None:
    """Find a metric of the whole, on a part or without one."""
    found = [m for m in metrics if m.name == name and not m.class_name]
    return next((m for m in found if m.split == split), found[0] if found else None)


def metric_text(value: report_pb2.Metric | None) -> str:
    """Give ``"0.912 (0.871 to 0.947)"``."""
    if value is None:
        return "not measured"
    interval = f" ({value.lower:.3f} to {value.upper:.3f})" if value.HasField("lower") and value.HasField("upper") else ""
    return f"{value.value:.3f}{interval}"


def local_path(uri: str) -> str:
    """Give the path of a ``file://`` URI; other URIs as they are."""
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri


def local_file(uri: str) -> Path | None:
    """Give the file of a URI if this machine has it."""
    path = Path(local_path(uri))
    return path if "://" not in str(path) and path.is_absolute() and path.is_file() else None


def size(count: int) -> str:
    """Give bytes as ``"12.3 MB"``."""
    if count < 1000:
        return f"{count} bytes"
    value, unit = count / 1000, "kB"
    for larger in ("MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}"
