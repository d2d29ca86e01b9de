"""``oteo deidentify``: DICOM without what identifies its patients, made on this machine alone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from oteo.cli.session import Session, command, table
from oteo.connection import home
from oteo.errors import OteoApiError

_SHOWN = 20
_DATES = ("remove", "full", "modified")


def run(
    session: Session,
    source: Annotated[Path, typer.Argument(help="A DICOM file, or a folder: all files below it. It is only read.")],
    target: Annotated[
        Path, typer.Argument(help="A new or empty folder; files in it are called after their new patients, series and objects.")
    ],
    dates: Annotated[
        str, typer.Option("--dates", help="remove; full: keep them; modified: move all of a patient by one number of days.")
    ] = "remove",
    retain_uids: Annotated[bool, typer.Option("--retain-uids", help="Keep UIDs; default: keyed hashes.")] = False,
    retain_device: Annotated[bool, typer.Option("--retain-device", help="Keep what names the device.")] = False,
    retain_institution: Annotated[bool, typer.Option("--retain-institution", help="Keep what names the institution.")] = False,
    retain_patient: Annotated[bool, typer.Option("--retain-patient", help="Keep sex, age (90 at most), size and weight.")] = False,
    clean_descriptors: Annotated[
        bool, typer.Option("--clean-descriptors", help="Keep of descriptions the words of the standard's vocabulary; default: none.")
    ] = False,
    blank: Annotated[
        list[str] | None,
        typer.Option("--blank", metavar="X,Y,WIDTH,HEIGHT", help="Paint over a part of every picture, pixels; again for more."),
    ] = None,
    blank_text: Annotated[
        bool, typer.Option("--blank-text", help="Paint over what looks like text; look at the result all the same.")
    ] = False,
    key_file: Annotated[
        Path | None, typer.Option("--key-file", help="Key of the hashes; default: that of this machine's stack, made if there is none.")
    ] = None,
) -> None:
    """De-identify DICOM on this machine by PS3.15's Basic Profile; nothing is sent anywhere, and nothing is written over.

    Pixels are not touched unless you say so: look at the files that are named as suspects of burned-in text, and at faces in heads.
    """
    if dates not in _DATES:
        raise typer.BadParameter(f"one of {', '.join(_DATES)}", param_hint="--dates")
    flags = {
        "--retain-uids": retain_uids, "--retain-device": retain_device, "--retain-institution": retain_institution,
        "--retain-patient": retain_patient, "--clean-descriptors": clean_descriptors, "--blank-suspects": blank_text,
    }  # fmt: skip
    arguments = [flag for flag, given in flags.items() if given] + [f"--blank={one}" for one in blank or []]
    key = key_file or home() / "deidentification.key"
    report = _work(session, [f"--dates={dates}", f"--key-file={key}", *arguments, "--", str(source), str(target)])
    report["refused"] = [dict(zip(("file", "reason", "message"), one, strict=True)) for one in report["refused"]]
    report["findings"] = [dict(zip(("file", "code", "message"), one, strict=True)) for one in report["findings"]]
    _show(session, report, target)
    if not report["written"]:
        raise OteoApiError(
            "INVALID_ARGUMENT", f"none of the files of {source} could be de-identified", reason="NOTHING_WRITTEN", field="source"
        )


def _work(session: Session, arguments: list[str]) -> dict[str, Any]:
    """Run core's command, which alone knows DICOM, and give its report.

    Raises
    ------
    OteoApiError
        What it says, or CORE_NOT_INSTALLED.
    """
    # The command stands on the contract alone and imports no part of the services; on a machine without them there is nothing to run.
    if importlib.util.find_spec("oteo_core") is None or importlib.util.find_spec("pydicom") is None:
        raise OteoApiError(
            "FAILED_PRECONDITION", "this needs Oteo's core with DICOM: pip install 'oteo-core[sequences]'", reason="CORE_NOT_INSTALLED"
        )
    columns = (TextColumn("de-identifying"), BarColumn(), MofNCompleteColumn())
    process = subprocess.Popen(
        [sys.executable, "-m", "oteo_core.deidentification", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    last: dict[str, Any] = {}
    with process, Progress(*columns, console=session.err, disable=not session.err.is_terminal) as progress:
        bar = progress.add_task("files", total=None)
        for line in process.stdout or ():
            last = json.loads(line)
            if last["kind"] == "progress":
                progress.update(bar, completed=last["done"], total=last["total"])
        complaint = (process.stderr.read() if process.stderr else "").strip()
    if last.get("kind") == "error":
        raise OteoApiError(last["code"], last["message"], reason=last["reason"], field=last["field"])
    if last.get("kind") != "report":
        usage = (
            complaint.rpartition("error: ")[2]
            if process.returncode == 2
            else f"the work ended without a word (exit code {process.returncode})"
        )
        raise OteoApiError("INVALID_ARGUMENT" if process.returncode == 2 else "INTERNAL", usage, reason="DEIDENTIFICATION_FAILED")
    del last["kind"]
    return last


def _show(session: Session, report: dict[str, Any], target: Path) -> None:
    found, refused = report["findings"], report["refused"]
    lines: list[Any] = [
        f"{report['written']} files of {report['patients']} patients in {escape(str(target))}",
        f"[dim]{escape(report['method'])}: {escape('; '.join(meaning for _, meaning in report['codes']))}[/]",
        f"[dim]key: {escape(report['key_file'])} — keep it secret, and safe where more files of these patients are to come[/]",
    ]
    if refused:
        counts = Counter(one["reason"] for one in refused)
        lines.append(f"\n{len(refused)} files were not taken: " + ", ".join(f"{code} {count}" for code, count in counts.most_common()))
        shown = table("file", "why")
        for one in refused[:_SHOWN]:
            shown.add_row(escape(one["file"]), escape(one["message"]))
        lines.append(shown)
    if found:
        shown = table("new file", "why", title=f"\n{len(found)} to look at{f'; the first {_SHOWN}' if len(found) > _SHOWN else ''}")
        for one in found[:_SHOWN]:
            shown.add_row(escape(one["file"]), escape(one["message"]))
        lines.append(shown)
    session.show(report, *lines)


def add(app: typer.Typer) -> None:
    """Add the command."""
    command(app, "deidentify")(run)
