"""Nothing that identifies comes out of an import of DICOM: files, folders, headers and broken values full of marks go in, and all that is said, traced and left is searched."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import prometheus_client
import pytest
from canaries import MARK, Canaries, canaries, forms, found_in, search, write_files
from google.longrunning import operations_pb2, operations_pb2_grpc
from live_server import live_server
from trace_collector import Collector, collecting
from waiting import patient, wait_for

from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core import tracing
from oteo_core.jobs import ProcessJobRunner
from oteo_core.server import sync_channel
from oteo_core.telemetry import configure_logging
from oteo_protos.augment.v1 import dataset_pb2 as pb
from oteo_protos.augment.v1 import dataset_pb2_grpc


class Site:
    """A running service, and everything that it says."""

    def __init__(self, home: Path, channel: grpc.Channel, collector: Collector) -> None:
        self.home = home
        self.collector = collector
        self.datasets = dataset_pb2_grpc.DatasetServiceStub(channel)
        self.operations = operations_pb2_grpc.OperationsStub(channel)
        self.said: list[bytes] = []

    def hear(self, message: object) -> object:
        self.said.append(str(message).encode())
        self.said.append(message.SerializeToString())  # type: ignore[attr-defined]
        return message

    def wait(self, operation: operations_pb2.Operation) -> operations_pb2.Operation:
        heard = operation

        def ended() -> bool:
            nonlocal heard
            heard = self.operations.GetOperation(operations_pb2.GetOperationRequest(name=operation.name))
            self.hear(heard)
            return heard.done

        wait_for(ended, 80, pause=0.1)
        return heard

    def refused(self, call) -> None:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        self.said.append(repr((caught.value.details(), caught.value.trailing_metadata())).encode())


@pytest.fixture(scope="module")
def made() -> Canaries:
    """Give the files, drawn before anything listens: the library that writes them is loud about their values."""
    return canaries()


@pytest.fixture
def site(made, tmp_path) -> Iterator[Site]:
    home = tmp_path / "home"
    with collecting() as collector:
        yield from _serving(home, tmp_path / "service.log", collector)


def _serving(home: Path, log: Path, collector: Collector) -> Iterator[Site]:
    settings = AugmentSettings(
        home=home,
        allow_anonymous=True,
        job_python=sys.executable,
        reconcile_seconds=0.1,
        log_level="debug",
        otlp_endpoint=collector.endpoint,
    )
    runner = ProcessJobRunner(home / "jobs", executor="inline")
    configure_logging(settings, "augment")
    tracing.configure_tracing(settings, "augment")
    root = logging.getLogger()
    lines = logging.FileHandler(log)
    root.addHandler(lines)
    augment = Augment(settings, runner)
    with live_server(settings, augment.register) as server:
        server.run(augment.start()).result(patient(30))
        channel = sync_channel(server.address, settings)
        yield Site(home, channel, collector)
        channel.close()
        server.run(augment.stop()).result(patient(30))
    runner.close()
    tracing.end_tracing()
    root.removeHandler(lines)


def test_nothing_that_identifies_is_kept_logged_or_told(made, site, tmp_path, capfd):
    wanted = forms(made.identities)
    source = write_files(tmp_path / "scans", made.files)
    # The search finds what is there, or its silence would mean nothing.
    assert len(search([source], wanted)) > len(made.files)

    done = site.wait(site.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(source), dataset_id="scans")))
    assert not done.HasField("error"), done.error
    listed = site.datasets.ListSamples(pb.ListSamplesRequest(parent="datasets/scans", page_size=100, include_excluded=True))
    site.hear(listed)
    kept = [sample for sample in listed.samples if not sample.excluded]
    out = [sample for sample in listed.samples if sample.excluded]
    assert len(kept) >= 12
    assert len(out) >= 5
    assert len({sample.group for sample in kept if sample.group.startswith("patient-")}) == 6 + any(s.group for s in kept[12:])
    assert {sample.source_path.split("/")[0] for sample in kept} == {"a", "b"}
    assert all(sample.source_path.endswith(".dcm") for sample in kept)
    site.hear(site.datasets.GetDataset(pb.GetDatasetRequest(name="datasets/scans")))

    audit = site.wait(site.datasets.AuditDataset(pb.AuditDatasetRequest(name="datasets/scans")))
    assert not audit.HasField("error"), audit.error
    exported = tmp_path / "exported"
    for number, kind in enumerate((pb.DATASET_FORMAT_CSV, pb.DATASET_FORMAT_CLASS_FOLDERS, pb.DATASET_FORMAT_OTEO)):
        request = pb.ExportDatasetRequest(name="datasets/scans", format=kind, destination_uri=str(exported / str(number)))
        done = site.wait(site.datasets.ExportDataset(request))
        assert not done.HasField("error"), done.error

    # Errors too: nothing but broken files, one part of them at a time; a pattern, a table and a folder that name what is not there.
    cut = next(data for name, data in made.files.items() if "cut-header" in name)
    only = write_files(tmp_path / "only", {f"{folder}/{MARK}CUT.dcm": cut for folder in "ab"})
    failed = site.wait(site.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(only), dataset_id="only")))
    assert failed.HasField("error")
    table = {f"{MARK}FILE {n}.dcm": data for n, data in enumerate(made.files.values()) if n < 4}
    rows = "\n".join(f"{name},{'xy'[number % 2]}" for number, name in enumerate([*table, f"{MARK}MISSING.dcm"]))
    table["labels.csv"] = f"file,label\n{rows}\n".encode()
    listed_in = write_files(tmp_path / "table", table)
    done = site.wait(site.datasets.ImportDataset(pb.ImportDatasetRequest(source_uri=str(listed_in), dataset_id="table")))
    assert not done.HasField("error"), done.error
    site.hear(site.datasets.ListSamples(pb.ListSamplesRequest(parent="datasets/table", include_excluded=True)))
    table["labels.csv"] = f"file,label\n{MARK}FILE 0.dcm\n".encode()
    bad = write_files(tmp_path / "bad", table)
    bad_table = pb.ImportDatasetRequest(source_uri=str(bad), dataset_id="bad", format=pb.DATASET_FORMAT_COCO)
    site.refused(lambda: site.datasets.ImportDataset(bad_table))

    # The service's spans are sent before this returns, those of jobs before they end.
    tracing.end_tracing()
    traced = {(span.service, span.name) for span in site.collector.spans}
    assert {("oteo-augment", "oteo.augment.v1.DatasetService/ImportDataset"), ("oteo-augment-job", "job ImportDataset")} <= traced
    site.said += site.collector.sent
    site.said.append(prometheus_client.generate_latest())
    told = capfd.readouterr()
    site.said += [told.out.encode(), told.err.encode()]
    assert {name for data in site.said for name in found_in(data, wanted)} == set()
    (tmp_path / "logs").mkdir()
    (tmp_path / "service.log").rename(tmp_path / "logs" / "service.log")
    assert search([site.home, exported, tmp_path / "logs"], wanted) == {}
