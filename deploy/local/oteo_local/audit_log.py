"""The audit log's command as ``oteo audit`` runs it: the client itself knows the contract alone."""

from __future__ import annotations

from collections.abc import Sequence

from oteo_core.auditlog.command import main


def run(arguments: Sequence[str]) -> int:
    """Run ``verify``, ``show``, ``export`` or ``follow`` with its arguments, and give the exit code."""
    return main(arguments, "oteo audit")
