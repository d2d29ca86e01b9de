"""AuditDataset from the call to the report: what is published, the same however the work is shared out, killed or run again; the cleaned dataset."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from audit_sets import row, scene, scenes, write
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.rpc import status_pb2
from live_server import live_server
from waiting import patient, wait_done

from oteo_augment import audit_job
from oteo_augment.audit_job import HANDLERS
from oteo_augment.auditing import audit as audit_module
from oteo_augment.service import Augment
from oteo_augment.settings import AugmentSettings
from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.datasets import Box, DatasetReader, Finding, Sample, Severity
from oteo_core.errors import OteoError, from_status
from oteo_core.jobs import JobContext, JobRunner, ProcessJobRunner
from oteo_core.jobs.executor import ProcessExecutor
from oteo_core.jobs.testing import run_handler
from oteo_core.server import sync_channel
from oteo_protos.augment.v1 import dataset_pb2 as pb
from oteo_protos.augment.v1 import dataset_pb2_grpc
from oteo_protos.type.v1 import report_pb2

HANDLER = HANDLERS["AuditDataset"]
ID = "test-aaaaaaaaaaaaaaaaaaaa"


def faulty(store: ArtifactStore, name: str = "cells") -> None:
    """Write a dataset with most faults."""
    rows = scenes()
    rows["c0-00"] = (replace(rows["c0-00"][0], group="patient"), rows["c0-00"][1])
    rows["c0-01"] = (replace(rows["c0-01"][0], group="patient"), rows["c0-01"][1])
    rows["c0-04"] = (replace(rows["c0-04"][0], group="patient"), rows["c0-04"][1])
    gone = (Finding(Severity.ERROR, "TRUNCATED_IMAGE", "ends early", "in/bad.png"),)
    write(
        store,
        name,
        [
            *rows.values(),
            row("copy", scene(1, 0), labels=("c1",), split="train"),
            row("torn", scene(1, 4), labels=("c1",), split="train"),
            row("two-labels", scene(1, 1), labels=("c2",), split="train"),
            row("turned", scene(2, 91), labels=("c2",), split="train", derived_from="two-labels"),
            row("lost", scene(2, 90), labels=("c2",), split="train"),
            (Sample("bad", source_path="in/bad.png", excluded=True, findings=gone), b""),
        ],
    )
    reader = DatasetReader(store, name)
    store.delete(f"datasets/{name}/{reader.sample('lost').path}")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch) -> AugmentSettings:
    monkeypatch.setenv("OTEO_EXECUTOR", "inline")
    return AugmentSettings(home=tmp_path, allow_anonymous=True)


@pytest.fixture
def artifacts(settings) -> ArtifactStore:
    store = open_store(settings)
    faulty(store)
    return store


def run(settings, artifacts, *, operation: str = ID, **fields) -> pb.AuditDatasetResponse:
    response = pb.AuditDatasetResponse()
    request = pb.AuditDatasetRequest(name="datasets/cells", **fields)
    assert run_handler(HANDLER, request, settings=settings, artifacts=artifacts, operation_id=operation).Unpack(response)
    return response


def published(artifacts, operation: str = ID) -> dict[str, bytes]:
    """Give what an audit wrote, without when it was asked for."""
    files = {entry.path.rpartition("/")[2]: artifacts.read_bytes(entry.path) for entry in artifacts.iter(f"audits/{operation}")}
    blank = {name: re.sub(rb"\d+ \w+ \d{4}, \d\d:\d\d|\d{4}-\d\d-\d\dT[\d:]+\+00:00", b"TIME", data) for name, data in files.items()}
    return {name: data.replace(operation.encode(), b"ID") for name, data in blank.items()}


def test_a_report_a_list_and_a_summary(settings, artifacts):
    response = run(settings, artifacts)
    assert response.dataset == "datasets/cells"
    counts = {count.code: count.count for count in response.counts}
    assert counts["CONFLICTING_LABELS"] == counts["MEDIA_LOST"] == counts["LEAK_GROUP"] == counts["LEAK_DUPLICATE"] == 1
    assert counts["EXACT_DUPLICATE"] == 2
    severities = [finding.severity for finding in response.findings]
    assert severities == sorted(severities, reverse=True)
    assert severities[0] == report_pb2.Finding.SEVERITY_ERROR
    conflict = next(f for f in response.findings if f.code == "CONFLICTING_LABELS")
    assert conflict.sample == "datasets/cells/samples/c1-01"
    assert list(conflict.related_samples) == ["datasets/cells/samples/two-labels"]
    assert conflict.path == "in/c1-01.png"
    files = published(artifacts)
    assert set(files) == {"report.html", "findings.jsonl", "summary.json"}
    lines = [json.loads(line) for line in files["findings.jsonl"].splitlines()]
    assert len(lines) == sum(counts.values())
    assert [(line["code"], line["message"]) for line in lines] == [(f.code, f.message) for f in response.findings]
    summary = json.loads(files["summary.json"])
    assert {entry["code"]: entry["count"] for entry in summary["counts"]} == counts
    assert summary["dataset_digest"] == DatasetReader(artifacts, "cells").info.digest
    page = files["report.html"].decode()
    assert "Not as it is: some of it would spoil a training." in page
    assert page.count("data:image/jpeg;base64,") >= 8
    assert page.count("data:image/svg+xml;base64,") == 4
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "the page loads nothing"
    for finding in lines:
        assert finding["code"] in page
    assert response.report_uri == artifacts.uri(f"audits/{ID}/report.html")
    assert response.findings_uri == artifacts.uri(f"audits/{ID}/findings.jsonl")
    assert not response.fixed_dataset


def test_only_the_checks_that_were_asked_for(settings, artifacts):
    response = run(settings, artifacts, checks=["leaks", "files"])
    assert {finding.code for finding in response.findings} == {"MEDIA_LOST", "LEFT_OUT_BEFORE", "LEAK_GROUP", "LEAK_DUPLICATE"}


def test_a_name_cannot_bring_html_into_the_page(settings, artifacts):
    sample, data = row("x", scene(0, 0), labels=("c0",), split="train", source_path="<script>alert(1)</script>.png")
    artifacts.delete("datasets/cells")
    write(artifacts, "cells", [*scenes().values(), (sample, data)])
    run(settings, artifacts)
    page = published(artifacts)["report.html"].decode()
    assert "&lt;script&gt;alert" in page
    assert "<script>" not in page


def test_the_same_with_one_worker_and_with_two(settings, artifacts, monkeypatch):
    run(settings, artifacts)
    monkeypatch.setattr(audit_module, "SHARD_SAMPLES", 9)
    monkeypatch.setattr(audit_module, "FAN_OUT_FROM", 0)
    used = []

    @contextmanager
    def two(self, kind=None) -> Iterator[ProcessExecutor]:
        with ProcessExecutor(2) as executor:
            used.append(executor.cpus)
            yield executor

    monkeypatch.setattr(JobContext, "executor", two)
    other = "test-bbbbbbbbbbbbbbbbbbbb"
    run(settings, artifacts, operation=other)
    assert used == [2.0]
    assert published(artifacts, other) == published(artifacts)


def test_killed_and_run_again_it_goes_on_and_says_the_same(settings, artifacts, monkeypatch):
    monkeypatch.setattr(audit_module, "SHARD_SAMPLES", 9)
    run(settings, artifacts, fix=True, fixed_dataset_id="whole")
    real = audit_module.measure_shard
    measured = []

    def dies(job, samples, *rest):
        if len(measured) == 4:
            raise RuntimeError("killed")
        measured.append(len(samples))
        return real(job, samples, *rest)

    monkeypatch.setattr(audit_module, "measure_shard", dies)
    other = "test-bbbbbbbbbbbbbbbbbbbb"
    with pytest.raises((RuntimeError, OteoError)):
        run(settings, artifacts, operation=other, fix=True, fixed_dataset_id="again")
    assert not artifacts.exists(f"audits/{other}")
    assert not artifacts.exists("datasets/again")
    measured.clear()
    monkeypatch.setattr(audit_module, "measure_shard", lambda *arguments: measured.append(1) or real(*arguments))
    run(settings, artifacts, operation=other, fix=True, fixed_dataset_id="again")
    assert len(measured) == 8 - 4, "what was measured is not measured again"
    first, second = published(artifacts), published(artifacts, other)
    assert {name: data.replace(b"datasets/again", b"datasets/whole") for name, data in second.items()} == first
    assert DatasetReader(artifacts, "again").info.digest == DatasetReader(artifacts, "whole").info.digest
    # Killed after the cleaned dataset was published and before the report was.
    last = "test-cccccccccccccccccccc"
    with monkeypatch.context() as patch:
        patch.setattr(audit_job, "write_outcome", lambda *arguments: 1 / 0)
        with pytest.raises((RuntimeError, OteoError)):
            run(settings, artifacts, operation=last, fix=True, fixed_dataset_id="later")
    assert not artifacts.exists(f"audits/{last}")
    left = DatasetReader(artifacts, "later").info
    run(settings, artifacts, operation=last, fix=True, fixed_dataset_id="later")
    assert {name: data.replace(b"datasets/later", b"datasets/whole") for name, data in published(artifacts, last).items()} == first
    assert DatasetReader(artifacts, "later").info == left


def test_fix_leaves_out_what_spoils_and_moves_only_what_leaks(settings, artifacts):
    response = run(settings, artifacts, fix=True, fixed_dataset_id="cells-cleaned")
    assert response.fixed_dataset == "datasets/cells-cleaned"
    old, new = DatasetReader(artifacts, "cells"), DatasetReader(artifacts, "cells-cleaned")
    before = {s.id: s for s in old.samples(include_excluded=True)}
    after = {s.id: s for s in new.samples(include_excluded=True)}
    assert list(after) == list(before), "nothing vanishes: what is left out stays listed"
    out = {name: sample.findings[-1].code for name, sample in after.items() if sample.excluded and not before[name].excluded}
    assert out == {
        "copy": "EXACT_DUPLICATE",
        "torn": "EXACT_DUPLICATE",
        "c1-01": "CONFLICTING_LABELS",
        "two-labels": "CONFLICTING_LABELS",
        "turned": "CONFLICTING_LABELS",
        "lost": "MEDIA_LOST",
    }
    assert after["bad"] == before["bad"]
    moved = {name for name, sample in after.items() if sample.split != before[name].split}
    assert moved == {"c0-04"}, "the one of the patient's pictures that was in the test part"
    assert after["c0-04"].split == "train"
    for name, sample in after.items():
        if name not in out and name not in moved:
            assert sample == before[name]
        if not sample.excluded:
            assert new.read_media(sample) == old.read_media(before[name])
    told = new.info.provenance["fix"]
    assert told["samples_left_out"] == {"CONFLICTING_LABELS": 3, "EXACT_DUPLICATE": 2, "MEDIA_LOST": 1}
    assert told["moved"] == [{"sample": "c0-04", "path": "in/c0-04.png", "from": "test", "to": "train", "code": "LEAK"}]
    assert new.info.provenance["source_digest"] == old.info.digest
    assert new.info.sample_count == old.info.sample_count - 6
    # What was cleaned is clean.
    again = pb.AuditDatasetResponse()
    request = pb.AuditDatasetRequest(name=response.fixed_dataset)
    packed = run_handler(HANDLER, request, settings=settings, artifacts=artifacts, operation_id="test-cccccccccccccccccccc")
    assert packed.Unpack(again)
    assert {f.code for f in again.findings} <= {"LEFT_OUT_BEFORE"}


def test_fix_leaves_out_degenerate_annotations_and_keeps_their_images(settings, artifacts):
    good, other = Box("a", 10, 10, 20, 20), Box("a", 40, 5, 9, 9)
    boxes = {"one": (good, Box("a", 3, 3, 0, 4), other), "two": (good, replace(good, x=10.2)), "three": (good,)}
    artifacts.delete("datasets/cells")
    rows = [row(name, scene(0, i), split="train", boxes=found) for i, (name, found) in enumerate(boxes.items())]
    write(artifacts, "cells", rows, task="detection", classes=("a",))
    run(settings, artifacts, fix=True, fixed_dataset_id="mended", checks=["annotations"])
    mended = DatasetReader(artifacts, "mended")
    assert {s.id: s.boxes for s in mended.samples()} == {"one": (good, other), "two": (good,), "three": (good,)}
    assert mended.sample("one").findings[-1].code == "EMPTY_ANNOTATION"
    assert mended.info.provenance["fix"]["annotations_left_out"] == {"DUPLICATE_ANNOTATION": 1, "EMPTY_ANNOTATION": 1}


def test_fix_takes_back_what_was_said_because_of_the_left_out(settings, artifacts):
    twin = Finding(Severity.WARNING, "EXACT_DUPLICATE", "the same pixels as copy.png", "in/first.png", ("copy",))
    like = Finding(Severity.INFO, "NEAR_DUPLICATE", "looks like two others", "in/first.png", ("copy", "c0-01"))
    artifacts.delete("datasets/cells")
    first = row("first", scene(1, 90), labels=("c1",), split="train", findings=(twin, like))
    write(artifacts, "cells", [*scenes().values(), first, row("copy", scene(1, 90), labels=("c1",), split="train")])
    run(settings, artifacts, fix=True, fixed_dataset_id="mended")
    mended = DatasetReader(artifacts, "mended")
    assert mended.sample("copy").excluded
    assert mended.sample("first").findings == (like,), "one of the two others is still there"


@pytest.fixture(scope="module")
def caller(tmp_path_factory):
    home = tmp_path_factory.mktemp("augment")
    settings = AugmentSettings(home=home, allow_anonymous=True, job_python=sys.executable, reconcile_seconds=0.1)
    runner: JobRunner = ProcessJobRunner(home / "jobs", executor="inline")
    faulty(open_store(settings))
    augment = Augment(settings, runner)
    with live_server(settings, augment.register) as server:
        server.run(augment.start()).result(patient(30))
        channel = sync_channel(server.address, settings)
        yield dataset_pb2_grpc.DatasetServiceStub(channel), operations_pb2_grpc.OperationsStub(channel)
        channel.close()
        server.run(augment.stop()).result(patient(30))
    runner.close()


def refusal(call) -> tuple[grpc.StatusCode, str, str | None, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    trailing = dict(caught.value.trailing_metadata())
    error = from_status(status_pb2.Status.FromString(trailing["grpc-status-details-bin"]))
    return caught.value.code(), error.reason, error.field, error.message


def test_over_the_service_with_the_job_as_a_process(caller):
    datasets, operations = caller
    request = pb.AuditDatasetRequest(name="datasets/cells", fix=True, request_id=str(uuid.uuid4()))
    operation = datasets.AuditDataset(request)
    name = operation.name
    busy = refusal(lambda: datasets.DeleteDataset(pb.DeleteDatasetRequest(name="datasets/cells")))
    assert busy[:2] == (grpc.StatusCode.FAILED_PRECONDITION, "DATASET_IN_USE")
    operation = wait_done(lambda: operations.GetOperation(operations_pb2.GetOperationRequest(name=name)), 30)
    response, metadata = pb.AuditDatasetResponse(), pb.AuditDatasetMetadata()
    assert operation.response.Unpack(response), operation.error
    assert operation.metadata.Unpack(metadata)
    assert metadata.progress.state == report_pb2.Progress.STATE_SUCCEEDED
    assert list(metadata.finished_checks)[:2] == ["files", "duplicates"]
    assert {c.code: c.count for c in metadata.findings} == {c.code: c.count for c in response.counts}
    assert Path(response.report_uri.removeprefix("file://")).is_file()
    assert response.fixed_dataset == "datasets/cells-cleaned"
    assert datasets.GetDataset(pb.GetDatasetRequest(name=response.fixed_dataset)).source == "datasets/cells"
    # A replay gives the first answer, though the id is taken by now.
    assert datasets.AuditDataset(request).name == name
    taken = pb.AuditDatasetRequest(name="datasets/cells", fix=True, fixed_dataset_id="cells-cleaned")
    assert refusal(lambda: datasets.AuditDataset(taken))[:3] == (grpc.StatusCode.ALREADY_EXISTS, "DATASET_EXISTS", "fixed_dataset_id")


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"checks": ["files", "spelling"]}, (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_CHECK", "checks[1]")),
        ({"name": "datasets/none"}, (grpc.StatusCode.NOT_FOUND, "DATASET_NOT_FOUND", "name")),
    ],
)
def test_refused_at_once(caller, fields, wanted):
    refused = refusal(lambda: caller[0].AuditDataset(pb.AuditDatasetRequest(**{"name": "datasets/cells", **fields})))
    assert refused[:3] == wanted
