"""Records as DICOM audit messages: their structure, their codes, and syslog's frame."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from oteo_core.auditlog import AuditLog, AuditSettings, Event
from oteo_core.auditlog.atna import message, syslog
from oteo_core.auditlog.command import main
from oteo_core.auditlog.segments import segments_of

SCHEMA = etree.RelaxNG(etree.parse(Path(__file__).parent / "schemas/audit_message.rng"))
AUTOML, GATEWAY, AUGMENT = "oteo.automl.v1.AutoMLService", "oteo.gateway.v1", "oteo.augment.v1.DatasetService"

# Event, what its message says it is, its type, its action, its outcome.
CASES = [
    (Event("attempt", f"{AUTOML}/TrainModel", actor="a", resource="models/m"), "110100", "TrainModel", "C", "0"),
    (Event("call", f"{AUTOML}/DeleteModel", actor="a", resource="models/m", code="OK"), "110100", "DeleteModel", "D", "0"),
    (
        Event("call", f"{GATEWAY}.InferenceService/Predict", actor="a", source="::1", resource="deployments/d", code="OK"),
        "110100",
        "Predict",
        "E",
        "0",
    ),
    (Event("call", f"{AUGMENT}/ExportDataset", actor="a", resource="datasets/d", code="OK"), "110106", "ExportDataset", "R", "0"),
    (Event("call", f"{AUGMENT}/UploadDataset", actor="a", code="INTERNAL", reason="X"), "110107", "UploadDataset", "C", "8"),
    (Event("call", f"{AUGMENT}/ListDatasets", actor="a", code="OK"), "110112", "ListDatasets", "R", "0"),
    (Event("call", f"{AUTOML}/GetModel", code="UNAUTHENTICATED", reason="TOKEN_INVALID"), "110114", "110122", "R", "4"),
    (Event("call", f"{AUTOML}/TrainModel", actor="a", roles=("reader",), code="PERMISSION_DENIED"), "110113", "110132", "C", "4"),
    (
        Event("operation", "operation.end", actor="a", resource="models/m", code="UNAVAILABLE", used={"method": "TrainModel"}),
        "110100",
        "TrainModel",
        "E",
        "12",
    ),
    (
        Event("call", "inference.GRPCInferenceService/ModelInfer", actor="a", resource="models/m", code="OK"),
        "110100",
        "ModelInfer",
        "E",
        "0",
    ),
    (Event("log", "log.gap", code="DATA_LOSS", used={"count": 3}), "110113", "110133", "E", "8"),
]


@pytest.fixture
def written(tmp_path: Path) -> list[dict[str, Any]]:
    log = AuditLog(AuditSettings(home=tmp_path, audit_instance="door"))
    log.start()
    for event, *_ in CASES:
        log.append(event)
    log.close()
    return [json.loads(line) for line in segments_of(tmp_path / "audit/door")[0].read_bytes().splitlines()]


def test_every_kind_of_record_is_a_message_of_the_standard_s_structure(written: list[dict[str, Any]]) -> None:
    for record in written:
        SCHEMA.assertValid(etree.fromstring(message(record, site="Hospital 7")))


def test_messages_say_what_happened_in_the_standard_s_codes(written: list[dict[str, Any]]) -> None:
    assert [record["action"] for record in written] == ["log.start", *(event.action for event, *_ in CASES), "log.stop"]
    for record, (_, event, kind, action, outcome) in zip(written[1:-1], CASES, strict=True):
        root = etree.fromstring(message(record))
        identification = root.find("EventIdentification")
        assert identification is not None
        assert identification.find("EventID").get("csd-code") == event
        assert identification.find("EventTypeCode").get("csd-code") == kind
        assert (identification.get("EventActionCode"), identification.get("EventOutcomeIndicator")) == (action, outcome), record
        assert identification.get("EventDateTime") == record["time"]
    starts = [
        etree.fromstring(message(record)).find("EventIdentification/EventTypeCode").get("csd-code") for record in (written[0], written[-1])
    ]
    assert starts == ["110120", "110121"]


def test_a_message_names_the_caller_the_resource_and_its_place_in_the_log(written: list[dict[str, Any]]) -> None:
    record = written[3]
    root = etree.fromstring(message(record, site="Hospital 7"))
    caller = root.find("ActiveParticipant[@UserIsRequestor='true']")
    assert caller is not None
    assert (caller.get("UserID"), caller.get("NetworkAccessPointID"), caller.get("NetworkAccessPointTypeCode")) == ("a", "::1", "2")
    objects = [item.get("ParticipantObjectID") for item in root.iter("ParticipantObjectIdentification")]
    assert objects == ["deployments/d", f"door/{record['seq']}"]
    details = {item.get("type"): base64.b64decode(item.get("value")).decode() for item in root.iter("ParticipantObjectDetail")}
    assert details == {"seq": str(record["seq"]), "hash": record["hash"]}
    roles = [item.get("csd-code") for item in etree.fromstring(message(written[8])).iter("RoleIDCode")]
    assert roles == ["reader", "110150"]


def test_syslog_s_frame_has_priority_time_and_a_mark_of_utf_8(written: list[dict[str, Any]]) -> None:
    body = message(written[7])
    frame = syslog(written[7], body, "host.example")
    header, _, rest = frame.partition(b"\xef\xbb\xbf")
    assert re.fullmatch(rb"<84>1 \S+Z host\.example oteo [0-9a-f]{12} IHE\+RFC-3881 - ", header)
    assert rest == body
    assert syslog(written[1], b"", "h").startswith(b"<85>1 ")


def test_the_command_writes_frames_that_a_receiver_can_take_apart(
    tmp_path: Path, written: list[dict[str, Any]], capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEO_HOME", str(tmp_path))
    assert main(["export", "--format", "atna", "--syslog"]) == 0
    stream = capsysbinary.readouterr().out
    count = 0
    while stream:
        size, _, rest = stream.partition(b" ")
        frame, stream = rest[: int(size)], rest[int(size) :]
        SCHEMA.assertValid(etree.fromstring(frame.partition(b"\xef\xbb\xbf")[2]))
        count += 1
    assert count == len(written)
