"""A disk that is full and a target that cannot be written: told as such, with nothing left half-done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import bad_inputs
import pytest
from gateway_calls import Calls
from waiting import patient, wait_for

from oteo_local.ports import free_port
from oteo_protos.augment.v1 import dataset_pb2

pytestmark = pytest.mark.stack


@dataclass
class SmallStore:
    """An augment and a gateway of their own, whose artifacts lie on a small tmpfs."""

    mount: Path
    calls: Calls

    def remount(self, how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.mount)], check=True)

    def fill(self) -> None:
        with (self.mount / "ballast").open("wb") as file:
            try:
                while file.write(bytes(1 << 16)):
                    file.flush()
            except OSError:
                pass

    def published(self) -> list[str]:
        return sorted(str(p.relative_to(self.mount)) for p in self.mount.glob("datasets/*"))


@pytest.fixture(scope="module")
def services(stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallStore]:
    from oteo_local.health import grpc_health
    from oteo_local.programs import shared_environment

    tmp_path = tmp_path_factory.mktemp("small")
    mount = tmp_path / "store"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=768k", "oteo-test", str(mount)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    augment, gateway = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = {
        **os.environ,
        **shared_environment(stack.settings, stack.layout, stack.endpoints["ports"]),
        "OTEO_HOME": str(tmp_path / "home"),
        "OTEO_ARTIFACTS": f"file://{mount}",
        "OTEO_AUGMENT_ADDRESS": augment,
        "OTEO_GATEWAY_ADDRESS": gateway,
        # The stack's Triton is the stack's gateway's.
        "OTEO_TRITON_URLS": f"127.0.0.1:{free_port()}",
        "OTEO_MODEL_REPOSITORY": f"file://{tmp_path}/models",
    }
    (tmp_path / "home").mkdir()
    with ExitStack() as ending:
        ending.callback(subprocess.run, ["umount", "-l", str(mount)], check=True)
        for name, address in (("augment", augment), ("gateway", gateway)):
            log = ending.enter_context((tmp_path / f"{name}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", f"oteo_{name}"], env={**environment, "OTEO_LISTEN": address}, stdout=log, stderr=log
            )
            ending.callback(process.wait, patient(20))
            ending.callback(process.terminate)
        wait_for(
            lambda: grpc_health(augment) and grpc_health(gateway),
            60,
            said=lambda: (tmp_path / "augment.log").read_text() + (tmp_path / "gateway.log").read_text(),
            pause=0.2,
        )
        calls = Calls(gateway, stack.token)
        ending.callback(calls.close)
        yield SmallStore(mount, calls)


@pytest.fixture
def small(services: SmallStore) -> Iterator[SmallStore]:
    """The store, writable and with all of its room."""
    yield services
    services.remount("rw")
    (services.mount / "ballast").unlink(missing_ok=True)


def load(small: SmallStore, source: Path):
    return small.calls.datasets.ImportDataset(dataset_pb2.ImportDatasetRequest(source_uri=str(source), dataset_id=source.name))


def test_a_disk_that_is_full_before_the_work_begins(small, tmp_path):
    small.fill()
    answer = small.calls.refusal(lambda: load(small, bad_inputs.cells(tmp_path / "few", count=24)))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL"), answer
    assert not small.published()


def test_a_target_that_cannot_be_written(small, tmp_path):
    small.remount("ro")
    answer = small.calls.refusal(lambda: load(small, bad_inputs.cells(tmp_path / "few", count=24)))
    assert (answer.code, answer.reason) == ("FAILED_PRECONDITION", "READ_ONLY_TARGET"), answer
    assert "file system" in answer.message
    assert not small.published()


def test_a_disk_that_fills_while_a_dataset_is_written(small, tmp_path):
    source = bad_inputs.cells(tmp_path / "many", count=240)
    assert sum(f.stat().st_size for f in source.rglob("*.png")) > 1_200_000
    answer = small.calls.refusal(lambda: load(small, source))
    assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "DISK_FULL"), answer
    assert "free some space" in answer.message
    assert not small.published()
    # The space is given back: what fits can be imported afterwards.
    dataset = small.calls.result(load(small, bad_inputs.cells(tmp_path / "few", count=24))).dataset
    assert dataset.sample_count == 24
