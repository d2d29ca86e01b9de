"""A job for tests: counts in steps, each a checkpoint, and publishes what it counted. Run as ``python -m toy_job OPERATION ATTEMPT``."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from google.protobuf import struct_pb2

from oteo_core.errors import InvalidArgument, Unavailable
from oteo_core.jobs import JobContext, JobHandler, run_job
from oteo_core.settings import CoreSettings
from oteo_protos.augment.v1 import dataset_pb2

Context = JobContext[struct_pb2.Struct, dataset_pb2.ImportDatasetMetadata]


def request(**fields: Any) -> struct_pb2.Struct:
    """Give a request of the toy."""
    message = struct_pb2.Struct()
    message.update(fields)
    return message


def note(log: str, line: str) -> None:
    """Add a line to a file, in one write."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)


def step(number: int, seconds: float, log: str) -> int:
    """Do one step: the unit that is never done again once it is finished."""
    note(log, f"begin {number} {os.getpid()}")
    time.sleep(seconds)
    note(log, f"end {number} {os.getpid()}")
    return number * number


def count(context: Context) -> struct_pb2.Struct:
    """Count in steps and publish."""
    fields = dict(context.request.items())
    log, steps, seconds = str(fields["log"]), int(fields.get("steps", 3)), float(fields.get("seconds", 0.1))
    note(log, f"attempt {context.attempt} {os.getpid()}")
    (context.scratch / "leftover.bin").write_bytes(b"x" * 1000)
    with context.executor(None if fields.get("tasks") else "inline") as executor:
        for number in range(steps):
            context.check()
            context.progress(number / steps, stage="counting", message=f"step {number}")
            if context.load(f"step-{number}") is None:
                value = executor.submit(step, number, seconds, log).result()
                context.save(f"step-{number}", json.dumps(value).encode())
    total = sum(json.loads(context.load(f"step-{number}") or b"0") for number in range(steps))
    if "target" in fields:
        for part in range(5):
            context.artifacts.write_bytes(f"{context.staging}/parts/{part}", b"part")
        context.artifacts.write_bytes(f"{context.staging}/dataset.json", json.dumps({"total": total}).encode())
        context.publish(str(fields["target"]), "dataset.json")
    if fields.get("die_after_publish") and context.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return request(total=total)


def stubborn(context: Context) -> struct_pb2.Struct:
    """Sleep without ever asking whether it may go on."""
    note(str(context.request["log"]), f"attempt {context.attempt} {os.getpid()}")
    context.artifacts.write_bytes(f"{context.staging}/half", b"half")
    context.save("half", b"half")
    (context.scratch / "half").write_bytes(b"half")
    time.sleep(600)
    return request()


def fail(context: Context) -> struct_pb2.Struct:
    """Fail in the way that the request says."""
    note(str(context.request["log"]), f"attempt {context.attempt} {os.getpid()}")
    context.artifacts.write_bytes(f"{context.staging}/half", b"half")
    kind = str(context.request["kind"])
    if kind == "final":
        raise InvalidArgument("the toy does not like it", reason="TOY", field="toy")
    if kind == "unavailable":
        raise Unavailable("a part is away", reason="TOY_AWAY")
    if kind == "memory":
        raise MemoryError
    if kind == "bug":
        raise ValueError("a fault in the toy")
    if kind == "killed" and context.attempt < int(context.request["attempts"]):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "disk":
        full = Path("/dev/full")
        full.write_bytes(b"x")
    return request(attempt=context.attempt)


def _handler(run: Any) -> JobHandler[Any, Any]:
    return JobHandler(struct_pb2.Struct, dataset_pb2.ImportDatasetMetadata, run)


HANDLERS = {"Count": _handler(count), "Stubborn": _handler(stubborn), "Fail": _handler(fail)}

if __name__ == "__main__":
    run_job(CoreSettings, HANDLERS)
