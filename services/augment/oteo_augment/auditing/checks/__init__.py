"""One check a module, behind one registry."""

from __future__ import annotations

from collections.abc import Callable

from oteo_augment.auditing.catalogue import NAMES
from oteo_augment.auditing.checks import balance, channels, duplicates, files, label_errors, leaks, modes, objects, sizes, text
from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.findings import CheckResult

CHECKS: dict[str, Callable[[AuditData], CheckResult]] = {
    "files": files.run,
    "duplicates": duplicates.run,
    "leaks": leaks.run,
    "balance": balance.run,
    "sizes": sizes.run,
    "modes": modes.run,
    "annotations": objects.run,
    "channels": channels.run,
    "text": text.run,
    "label_errors": label_errors.run,
}
"""Checks by name: each takes the whole dataset and gives what it found; the same data give the same findings in the same order."""

assert tuple(CHECKS) == NAMES
