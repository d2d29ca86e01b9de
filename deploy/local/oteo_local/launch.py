"""Start one process of the stack in the place of whatever an earlier one left: ``python -m oteo_local.launch NAME -- COMMAND…``.

A process that is killed takes none of its children with it: Ray's daemons, workers and drivers, Triton's stubs and MLflow's worker live on, hold its ports and
write what they should not. supervisord knows only the process that it started, so whoever takes its place ends them first.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from oteo_local import processes

STACK = "OTEO_STACK_ID"
PROCESS = "OTEO_STACK_PROCESS"


def end_leftovers(stack: str, name: str) -> None:
    """End all processes that an earlier process of this name has left running.

    Parameters
    ----------
    stack : str
        The stack's mark.
    name : str
        The process's name.
    """
    left = [process for process in processes.with_marker(STACK, stack) if processes.variable(process, PROCESS) == name]
    if left:
        print(f"oteo: ending what an earlier {name} left: {sorted(process.pid for process in left)}", flush=True)
        stuck = processes.end(left, grace=0)
        if stuck:
            print(f"oteo: still there: {sorted(process.pid for process in stuck)}", flush=True)


def prune_sessions(folder: Path, keep: int = 2) -> None:
    """Remove Ray's sessions but the newest ``keep``: each has logs and sockets that nobody looks at again."""
    sessions = sorted(
        (path for path in folder.glob("session_*") if path.is_dir() and not path.is_symlink()), key=lambda path: path.stat().st_mtime
    )
    for path in sessions[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def main(arguments: list[str]) -> None:
    """Clean up, then become the command."""
    name, _, *command = arguments
    end_leftovers(os.environ[STACK], name)
    os.environ[PROCESS] = name
    if folder := os.environ.pop("OTEO_LAUNCH_PRUNE", ""):
        prune_sessions(Path(folder))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
