"""Local temporary folders of jobs, emptied at their end, also when that was sudden."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import psutil

_OWNER = ".owner"


def scratch_root() -> Path:
    """Give the folder that holds all scratch folders of this user on this machine."""
    return Path(tempfile.gettempdir()) / f"oteo-scratch-{os.geteuid()}"


def open_scratch(operation_id: str, attempt: int) -> Path:
    """Make a scratch folder for this process, after removing those of processes that are gone."""
    root = scratch_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if root.stat().st_uid != os.geteuid():
        raise PermissionError(f"{root} belongs to another user")
    sweep_scratch()
    folder = Path(tempfile.mkdtemp(prefix=f"{operation_id}-{attempt}-", dir=root))
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time()}
    (folder / _OWNER).write_text(json.dumps(owner))
    return folder


def sweep_scratch(root: Path | None = None) -> None:
    """Remove scratch folders of this machine whose process is gone."""
    try:
        folders = list((root or scratch_root()).iterdir())
    except FileNotFoundError:
        return
    for folder in folders:
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    try:
        owner = json.loads((folder / _OWNER).read_text())
        if owner["host"] != socket.gethostname():
            # Process ids of another machine or container mean nothing here.
            return False
        return bool(abs(psutil.Process(owner["pid"]).create_time() - owner["started"]) > 1.0)
    except psutil.NoSuchProcess:
        return True
    except (OSError, ValueError, KeyError):
        # Being made, or being removed by somebody else.
        return False
