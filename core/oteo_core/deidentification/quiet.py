"""pydicom without its voice: its warnings and log lines cite what elements hold, and would carry names into logs."""

from __future__ import annotations

import logging
import warnings


def silence() -> None:
    """Let pydicom neither warn nor log in this process; what is wrong with a file is told by errors of our own, which cite nothing."""
    warnings.filterwarnings("ignore", module=r"pydicom(\..*)?$")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
