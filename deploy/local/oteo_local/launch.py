"""Start one process of the stack in the place of whatever an earlier one left: ``python -m oteo_local.launch PROCESSES.JSON NAME``.

A process that is killed takes none of its children with it: Ray's daemons, workers and drivers, Triton's stubs and MLflow's worker live on, hold its ports and
write what they should not. supervisord knows only the process that it started, so whoever takes its place ends them first.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from oteo_local import logs, processes
from oteo_local.layout import write_private

if TYPE_CHECKING:  # a launch of every process must not wait for gRPC and pydantic
    from oteo_local.programs import Program

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
        memory = processes.shared_memory_of(left)
        stuck = processes.end(left, grace=0)
        processes.remove_shared_memory(memory)
        if stuck:
            print(f"oteo: still there: {sorted(process.pid for process in stuck)}", flush=True)


def prune_sessions(folder: Path, keep: int = 2) -> None:
    """Remove Ray's sessions but the newest ``keep``: each has logs and sockets that nobody looks at again."""
    sessions = sorted(
        (path for path in folder.glob("session_*") if path.is_dir() and not path.is_symlink()), key=lambda path: path.stat().st_mtime
    )
    for path in sessions[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def write(file: Path, programs: Sequence[Program], shared: Mapping[str, str]) -> None:
    """Write what `main` reads: command line and variables of every process.

    Parameters
    ----------
    file : Path
        Where to.
    programs : sequence of Program
        The processes.
    shared : mapping
        Variables of all of them.
    """
    content = {program.name: {"command": program.command, "environment": {**shared, **program.environment}} for program in programs}
    write_private(file, json.dumps(content, indent=1) + "\n")


def main(arguments: list[str]) -> None:
    """Clean up, then become the command."""
    file, name = arguments
    process = json.loads(Path(file).read_text())[name]
    end_leftovers(os.environ[STACK], name)
    os.environ.update({**process["environment"], PROCESS: name})
    print(f"{logs.STARTED}{name}, {time.strftime('%Y-%m-%d %H:%M:%S')}", flush=True)
    if folder := os.environ.pop("OTEO_LAUNCH_PRUNE", ""):
        prune_sessions(Path(folder))
    os.execvp(process["command"][0], process["command"])


if __name__ == "__main__":
    main(sys.argv[1:])
