"""``oteo audit verify``, ``show``, ``export`` and ``follow``: the audit log in a folder, without any server. The check of a dataset is ``oteo datasets audit``."""

from __future__ import annotations

import sys

import typer

from oteo.cli.local_parts import local_parts
from oteo.cli.session import Session
from oteo.errors import OteoApiError

app = typer.Typer(
    name="audit",
    help="The audit log: who did what to which resource, with what outcome. (A dataset is checked by `oteo datasets audit`.)",
    no_args_is_help=True,
)
# The command itself, with its help, lies beside the log, so that it also runs where there is no `oteo`.
_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


def _run(name: str, arguments: list[str]) -> None:
    missing = "the stack of one machine (oteo-local) is not installed here; where the log lies, run `python -m oteo_core.auditlog` instead"
    try:
        with local_parts(missing):
            from oteo_local import audit_log
    except OteoApiError as error:
        raise typer.Exit(Session("--json" in arguments, "").fail(error)) from None
    sys.stdout.flush()
    raise typer.Exit(audit_log.run([name, *arguments]))


@app.command("verify", context_settings=_PASSED_ON)
def verify(context: typer.Context) -> None:
    """Say what was changed, is missing or was cut off; exit code 1 where anything was."""
    _run("verify", context.args)


@app.command("show", context_settings=_PASSED_ON)
def show(context: typer.Context) -> None:
    """Show records, by time, actor, action, resource and outcome."""
    _run("show", context.args)


@app.command("follow", context_settings=_PASSED_ON)
def follow(context: typer.Context) -> None:
    """Send DICOM audit messages to an audit repository as they are written (syslog over TLS)."""
    _run("follow", context.args)


@app.command("export", context_settings=_PASSED_ON)
def export(context: typer.Context) -> None:
    """Write records as JSON lines, or as DICOM audit messages (--format atna)."""
    _run("export", context.args)
