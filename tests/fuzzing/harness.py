"""Runs children, notices those that die or hang, and counts what came of every input."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from waiting import patient

HANG_SECONDS = patient(20)
"""A single small input that takes longer is a hang."""
READY = b"ready"
"""The child's first line, once it has read every seed."""
_TESTS = Path(__file__).resolve().parent.parent


@dataclass
class Result:
    """What came of a run: outcomes by kind of file, what must not be, and the longest time of one input."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: tuple[float, str] = (0.0, "")

    @property
    def total(self) -> int:
        return sum(self.outcomes.values())


def run(
    count: int,
    corpus: Path,
    *,
    seed: int = 0,
    real: Path | None = None,
    faults: Path | None = None,
    told: Callable[[int], None] = lambda done: None,
    path: Sequence[str] = (),
) -> Result:
    """Send mutated files through the decoders.

    Parameters
    ----------
    count
        How many.
    corpus
        Folder of inputs that came to something new; they are mutated further, in this run and in later ones.
    seed
        Another seed draws other mutations.
    real
        Folder of real data; None: drawn files alone.
    faults
        Folder that inputs are copied to which crash, hang, or raise what is no `OteoError`.
    told
        Called with the number of inputs that are done.
    path
        Folders that the children look for modules in before all others.
    """
    corpus.mkdir(parents=True, exist_ok=True)
    result = Result()
    with tempfile.TemporaryDirectory(prefix="oteo-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        current = Path(folder) / "current"
        done = 0
        # Who interrupts a long run is told what came of it so far.
        with contextlib.suppress(KeyboardInterrupt):
            while done < count:
                reached, ended = _child(count, done, corpus, current, seed, real, result, told, path)
                if ended and reached < count:
                    kept = _keep(current, faults)
                    result.faults.append(f"input {reached}: {ended} ({kept})")
                    result.outcomes["?", f"!{ended}"] += 1
                    reached += 1
                done = reached
    return result


def _child(
    count: int,
    done: int,
    corpus: Path,
    current: Path,
    seed: int,
    real: Path | None,
    result: Result,
    told: Callable[[int], None],
    path: Sequence[str],
) -> tuple[int, str]:
    """Run one child; give the number of the input that it came to, and how it ended where it did not come to the end."""
    command = [sys.executable, "-m", "fuzzing.child", "--seed", str(seed), "--start", str(done), "--count", str(count - done)]
    command += ["--current", str(current), "--corpus", str(corpus), *(["--real", str(real)] if real else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([*path, str(_TESTS), *sys.path])}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, bufsize=0)
    assert child.stdout is not None
    reached, rest, began = done, b"", False
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        stack.callback(_end, child)
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(HANG_SECONDS):
                return reached, f"hang of {HANG_SECONDS:g} s"
            piece = os.read(child.stdout.fileno(), 1 << 16)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                if line == READY:
                    began = True
                    continue
                number, kind, outcome, seconds = json.loads(line)
                reached = number + 1
                result.outcomes[kind, outcome] += 1
                result.slowest = max(result.slowest, (seconds, f"input {number} ({kind}): {outcome}"))
                if outcome.startswith("!"):
                    # The child has gone on: the input is drawn again by its number where it is wanted.
                    result.faults.append(f"input {number} ({kind}): {outcome}")
                told(reached)
        status = child.wait()
    if not began:
        raise RuntimeError(f"the child ended with {status} before it began")
    return reached, "" if status == 0 else f"the child ended with {status}"


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def _keep(current: Path, faults: Path | None) -> str:
    if faults is None or not current.exists():
        return "not kept"
    faults.mkdir(parents=True, exist_ok=True)
    goal = faults / f"died-{len(list(faults.iterdir()))}.bin"
    shutil.copy(current, goal)
    return goal.name
