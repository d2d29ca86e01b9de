"""The audit log as files: what survives a kill at any byte, what a verification finds, and what never gets in."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import patient, wait_for

from oteo_core.artifacts import ArtifactStore
from oteo_core.auditlog import AuditLog, AuditSettings, Event, HeadStore, Keys, Report, load_keys, verify
from oteo_core.auditlog.canonical import canonical
from oteo_core.auditlog.chain import ChainWriter
from oteo_core.auditlog.command import main
from oteo_core.auditlog.keys import make_key_file
from oteo_core.auditlog.record import seal
from oteo_core.auditlog.segments import segments_of
from oteo_core.errors import FailedPrecondition, Unavailable

EVENT = Event("call", "oteo.gateway.v1.InferenceService/Predict", actor="reader", resource="deployments/skin", code="OK")


def settings(home: Path, **values: Any) -> AuditSettings:
    return AuditSettings(**{"home": home, "audit_instance": "door", "audit_head_seconds": 3600.0, **values})


def write(home: Path, count: int = 5, **values: Any) -> str:
    """Write a chain and close it; gives its name."""
    log = AuditLog(settings(home, **values))
    log.start()
    for number in range(count):
        log.append(Event("call", "test.v1.Test/Write", actor="somebody", code="OK", used={"count": number}))
    chain = log.chain
    log.close()
    return chain


def judge(home: Path, *, keys: bool = True, heads: bool = True) -> Report:
    """Verify as the command does."""
    found = load_keys(home / "audit-key")
    second = HeadStore(ArtifactStore(f"file://{home}/artifacts/audit"), "", found if keys else None)
    return verify([home / "audit"], found if keys else None, second.all() if heads else None)


def codes(report: Report) -> set[str]:
    return {finding.code for finding in report.findings if not finding.is_note}


def the_file(home: Path, chain: str = "door") -> Path:
    return segments_of(home / "audit" / chain)[-1]


def lines(home: Path) -> list[bytes]:
    return the_file(home).read_bytes().splitlines(keepends=True)


def test_canonical_json_is_sorted_bare_and_without_fractions() -> None:
    assert canonical({"b": [True, None, 3], "a": 'é"\n\x01', "C": {}}) == '{"C":{},"a":"é\\"\\n\\u0001","b":[true,null,3]}'.encode()
    for bad in ({"a": 0.5}, {"é": 1}, {"a": 2**53}, {"a": {1, 2}}, {"a": "\ud800"}):
        with pytest.raises(ValueError):
            canonical(bad)


def test_a_log_that_nobody_touched_is_intact(tmp_path: Path) -> None:
    chain = write(tmp_path)
    report = judge(tmp_path)
    assert report.intact
    assert not report.findings
    assert [(one.chain, one.first, one.records) for one in report.chains] == [(chain, 0, 7)]  # start, five, stop
    assert (tmp_path / "audit-key").stat().st_mode & 0o077 == 0
    write(tmp_path)
    assert judge(tmp_path).chains[0].records == 14


def test_a_kill_at_any_byte_of_the_tail_loses_no_whole_record_and_leaves_a_chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What is on the disk is given here byte by byte; bringing it there is the system's.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    make_key_file(tmp_path / "key")
    keys = load_keys(tmp_path / "key")
    writer = ChainWriter(tmp_path / "whole" / "door", "door", keys, None, boot="b", segment_bytes=1 << 20)
    for number in range(6):
        writer.append(Event("call", "test.v1.Test/Write", code="OK", used={"count": number}))
    writer.close()
    whole = segments_of(tmp_path / "whole" / "door")[0].read_bytes()
    ends = [at + 1 for at, byte in enumerate(whole) if byte == 10]
    for size in range(ends[-4], len(whole) + 1):
        folder = tmp_path / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "door").mkdir(parents=True)
        (folder / "door" / "0000000000000000.jsonl").write_bytes(whole[:size])
        kept = sum(end <= size for end in ends)
        torn = whole[ends[kept - 1] : size]
        before = verify([folder], keys)
        assert before.intact
        assert [one.code for one in before.findings] == (["TORN_TAIL"] if torn else [])
        again = ChainWriter(folder / "door", "door", keys, None, boot="c", segment_bytes=1 << 20)
        again.append(EVENT)
        again.close()
        report = verify([folder], keys)
        assert report.intact, (size, report.findings)
        assert [one.code for one in report.findings] == (["RECOVERED"] if torn else [])
        assert report.chains[0].records == kept + bool(torn) + 1
        assert [path.read_bytes() for path in (folder / "door").glob("torn/*.noted")] == ([torn] if torn else [])


def test_a_kill_of_the_recovery_itself_is_recovered_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 3)
    path = the_file(tmp_path)
    with path.open("ab") as file:
        file.write(b'{"half":')
    kept = path.read_bytes()
    real = ChainWriter.append
    monkeypatch.setattr(ChainWriter, "append", lambda self, event: (_ for _ in ()).throw(KeyboardInterrupt()))
    keys = load_keys(tmp_path / "audit-key")
    with pytest.raises(KeyboardInterrupt):
        ChainWriter(path.parent, "door", keys, None, boot="b", segment_bytes=1 << 20)
    monkeypatch.setattr(ChainWriter, "append", real)
    assert path.read_bytes() == kept.removesuffix(b'{"half":')
    write(tmp_path)
    report = judge(tmp_path)
    assert report.intact
    assert [one.code for one in report.findings] == ["RECOVERED"]


def _acknowledged(process: subprocess.Popen[bytes]) -> list[int]:
    assert process.stdout is not None
    return [int(line) for line in process.stdout.read().splitlines(keepends=True) if line.endswith(b"\n") and line.strip().isdigit()]


def _start_writer(home: Path, *arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-m", "audit_writer", str(home), *map(str, arguments)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def test_no_acknowledged_record_is_lost_when_a_writer_is_killed_again_and_again(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    dice = random.Random(5)
    for life in range(12):
        process = _start_writer(tmp_path, life * 10_000_000)
        assert process.stdout is not None
        first = process.stdout.readline()
        assert first.strip().isdigit(), "the writer wrote nothing"
        time.sleep(dice.uniform(0.0, 0.4))
        process.send_signal(signal.SIGKILL)
        process.wait()
        acknowledged |= {int(first), *_acknowledged(process)}
    written = {
        record["used"]["count"]
        for path in segments_of(tmp_path / "audit" / "writer")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n") and (record := json.loads(line))["kind"] == "call"
    }
    assert acknowledged <= written
    assert len(acknowledged) > 100
    report = judge(tmp_path)
    assert report.intact, report.findings
    assert [one.chain for one in report.chains] == ["writer"]
    assert len(segments_of(tmp_path / "audit" / "writer")) > 3


def test_a_file_that_may_not_grow_refuses_records_and_goes_on_later(tmp_path: Path) -> None:
    process = _start_writer(tmp_path, 0, 20_000)
    assert process.stdout is not None
    assert process.stdin is not None
    answers = []
    while (line := process.stdout.readline().strip()) != b"refused":
        answers.append(int(line))
    assert answers
    assert judge(tmp_path, heads=False).intact
    process.stdin.write(b"\n")
    process.stdin.close()
    assert process.wait(patient(20)) == 0
    report = judge(tmp_path)
    assert report.intact
    assert not report.findings
    records = [json.loads(line) for line in the_file(tmp_path, "writer").read_bytes().splitlines()]
    assert [one["used"]["count"] for one in records if one["action"] == "test.v1.Test/Write"] == answers
    assert records[-2]["action"] == "test.v1.Test/After"


@pytest.mark.parametrize("seed", range(3))
def test_any_changed_byte_is_found(tmp_path: Path, seed: int) -> None:
    write(tmp_path)
    path = the_file(tmp_path)
    whole = path.read_bytes()
    dice = random.Random(seed)
    for at in dice.sample(range(len(whole) - 1), 150):
        changed = bytearray(whole)
        changed[at] ^= 1 << dice.randrange(8)
        path.write_bytes(bytes(changed))
        report = judge(tmp_path)
        assert codes(report) & {"CHANGED", "GAP", "TRUNCATED"}, at
        assert any(finding.where.startswith(path.name) for finding in report.findings)


def _without(number: int) -> Callable[[list[bytes]], list[bytes]]:
    return lambda found: found[:number] + found[number + 1 :]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (_without(3), "GAP"),
        (_without(0), "GAP"),
        (_without(6), "TRUNCATED"),
        (lambda found: found[:4], "TRUNCATED"),
        (lambda found: [*found[:-1], found[-1][:40]], "TRUNCATED"),
        (lambda found: [*found[:2], found[3], found[2], *found[4:]], "ORDER"),
        (lambda found: [*found, found[-1]], "ORDER"),
        (lambda found: [*found[:3], b"\n", *found[3:]], "CHANGED"),
        (lambda found: [found[0].replace(b'{"action', b'{ "action'), *found[1:]], "CHANGED"),
        (lambda found: [], "TRUNCATED"),
    ],
)
def test_lines_that_are_missing_moved_or_added_are_found(tmp_path: Path, change: Callable[[list[bytes]], list[bytes]], code: str) -> None:
    write(tmp_path)
    the_file(tmp_path).write_bytes(b"".join(change(lines(tmp_path))))
    assert code in codes(judge(tmp_path))


def _forge(home: Path, keys: Keys | None) -> None:
    """Change who did something and compute everything after it anew, with keys of the forger's own or the real ones."""
    make_key_file(home / "forged")
    key = (keys or load_keys(home / "forged")).signing
    previous, out = "0" * 64, []
    for line in lines(home):
        record = json.loads(line)
        fields = {
            name: value for name, value in record.items() if name not in ("v", "chain", "boot", "seq", "time", "prev", "key", "hash", "mac")
        }
        if record["seq"] == 2:
            fields["actor"] = "nobody"
        sealed, previous = seal(
            fields, chain=record["chain"], boot=record["boot"], seq=record["seq"], previous=previous, seconds=time.time(), key=key
        )
        out.append(sealed)
    the_file(home).write_bytes(b"".join(out))


def test_a_chain_that_was_computed_anew_without_the_key_is_found_and_with_it_by_the_head(tmp_path: Path) -> None:
    write(tmp_path)
    kept = the_file(tmp_path).read_bytes()
    _forge(tmp_path, None)
    assert "CHANGED" in codes(judge(tmp_path))
    assert judge(tmp_path, keys=False, heads=False).intact  # why there is a key
    the_file(tmp_path).write_bytes(kept)
    _forge(tmp_path, load_keys(tmp_path / "audit-key"))
    assert judge(tmp_path, heads=False).intact  # why there is a second place
    assert codes(judge(tmp_path)) == {"REWRITTEN"}


def test_a_chain_that_was_cut_short_is_not_continued_and_stays_found(tmp_path: Path) -> None:
    write(tmp_path)
    the_file(tmp_path).write_bytes(b"".join(lines(tmp_path)[:3]))
    assert write(tmp_path) == "door-2"
    report = judge(tmp_path)
    assert codes(report) == {"TRUNCATED"}
    assert [(one.code, one.chain) for one in report.findings if one.is_note] == [("CHAIN_LEFT", "door")]
    assert write(tmp_path) == "door-2"
    assert codes(judge(tmp_path)) == {"TRUNCATED"}


def test_a_chain_that_is_gone_is_found_by_its_head_and_with_it_by_other_chains(tmp_path: Path) -> None:
    write(tmp_path)
    write(tmp_path, audit_instance="other")
    shutil.rmtree(tmp_path / "audit/door")
    assert codes(judge(tmp_path)) == {"CHAIN_MISSING"}
    shutil.rmtree(tmp_path / "artifacts/audit/door")
    report = judge(tmp_path)
    assert codes(report) == {"CHAIN_MISSING"}
    assert [finding.chain for finding in report.findings] == ["door"]


def test_heads_that_are_changed_or_gone_are_found(tmp_path: Path) -> None:
    write(tmp_path)
    head = tmp_path / "artifacts/audit/door/head.json"
    kept = head.read_bytes()
    head.write_bytes(kept.replace(b'"seq":6', b'"seq":5'))
    assert codes(judge(tmp_path)) == {"HEAD_CHANGED"}
    head.unlink()
    assert codes(judge(tmp_path)) == {"HEAD_MISSING"}
    # A writer that cannot trust the head of its chain begins another.
    head.write_bytes(kept.replace(b'"seq":6', b'"seq":5'))
    assert write(tmp_path) == "door-2"


def test_a_chain_goes_on_from_file_to_file_and_a_missing_one_is_found(tmp_path: Path) -> None:
    write(tmp_path, 60, audit_segment_bytes=4096)
    files = segments_of(tmp_path / "audit/door")
    assert len(files) > 3
    assert judge(tmp_path).intact
    middle, data = files[1], files[1].read_bytes()
    middle.unlink()
    assert "GAP" in codes(judge(tmp_path))
    middle.write_bytes(data)
    first, data = files[0], files[0].read_bytes()
    first.unlink()
    assert "BEGINNING_MISSING" in codes(judge(tmp_path))
    first.write_bytes(data)
    files[-1].unlink()
    assert codes(judge(tmp_path)) == {"TRUNCATED"}


def test_every_day_has_a_file_and_old_ones_are_kept_elsewhere_and_forgotten(tmp_path: Path) -> None:
    day = 86400.0
    now = time.time()
    clock = [now]
    log = AuditLog(settings(tmp_path, audit_keep_days=30, audit_archive=True), clock=lambda: clock[0])
    log.start()
    for _ in range(3):
        log.append(EVENT)
        log.keep_head()
        clock[0] += day
    assert len(segments_of(tmp_path / "audit/door")) == 3
    clock[0] = now + 60 * day
    log.append(EVENT)
    log.keep_head()
    log.close()
    files = segments_of(tmp_path / "audit/door")
    assert len(files) == 1
    report = judge(tmp_path)
    assert report.intact
    assert [one.code for one in report.findings] == ["FORGOTTEN"]
    archive = tmp_path / "artifacts/audit"
    keys = load_keys(tmp_path / "audit-key")
    heads = HeadStore(ArtifactStore(f"file://{archive}"), "", keys).all()
    both = verify([tmp_path / "audit", archive], keys, heads)
    assert both.intact
    assert not both.findings
    assert both.chains[0].first == 0
    # Where somebody else than the writer took the beginning away, an anchor says where the rest begins.
    (archive / "door" / segments_of(archive / "door")[0].name).unlink()
    partial = verify([archive], keys, heads)
    assert codes(partial) == set()  # what was forgotten covers it
    other = segments_of(archive / "door")[0]
    last = json.loads(other.read_bytes().splitlines()[-1])
    other.unlink()
    anchored = verify([archive], keys, heads, {"door": (last["seq"], last["hash"])})
    assert anchored.intact
    assert "ORDER" in codes(verify([archive], keys, heads, {"door": (last["seq"], "f" * 64)}))


def test_two_writers_of_one_name_have_a_chain_each(tmp_path: Path) -> None:
    one, other = AuditLog(settings(tmp_path)), AuditLog(settings(tmp_path))
    one.start()
    other.start()
    for _ in range(10):
        one.append(EVENT)
        other.append(EVENT)
    assert {one.chain, other.chain} == {"door", "door-2"}
    other.close()
    one.close()
    assert judge(tmp_path).intact
    assert len(judge(tmp_path).chains) == 2


def test_a_disk_that_takes_half_a_line_leaves_the_chain_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(settings(tmp_path))
    log.start()
    log.append(EVENT)
    real = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(descriptor, data[:-50])

    monkeypatch.setattr(os, "write", half)
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            log.append(EVENT)
        assert refused.value.reason == "AUDIT_UNAVAILABLE"
        log.missed()
    monkeypatch.setattr(os, "write", real)
    log.append(EVENT)
    log.close()
    report = judge(tmp_path)
    assert report.intact
    assert [(one.code, one.message.rpartition(": ")[2]) for one in report.findings] == [("NOT_WRITTEN", "3 records")]


def test_a_disk_that_does_not_keep_what_it_took_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = AuditLog(settings(tmp_path))
    log.start()
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(Unavailable):
        log.sync(log.append(EVENT))
    monkeypatch.setattr(os, "fsync", real)
    wait_for(lambda: log.chain)
    log.sync(log.append(EVENT))
    log.close()
    assert judge(tmp_path).intact


def test_keys_can_be_changed_and_bad_ones_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    old = (tmp_path / "audit-key").read_text()
    (tmp_path / "audit-key").write_text("ab" * 32 + "\n" + old)
    write(tmp_path)
    assert judge(tmp_path).intact
    (tmp_path / "audit-key").write_text("ab" * 32 + "\n")
    assert {"CHANGED", "HEAD_MISSING"} & codes(judge(tmp_path))
    for bad in ("", "ab" * 31, "no key"):
        (tmp_path / "audit-key").write_text(bad)
        with pytest.raises(FailedPrecondition, match="audit"):
            AuditLog(settings(tmp_path, audit_key_file=tmp_path / "audit-key"))


def test_nothing_but_identifiers_gets_into_the_log(tmp_path: Path) -> None:
    log = AuditLog(settings(tmp_path))
    log.start()
    secret = "Jane Doe 1957-03-02"
    log.append(
        Event(
            "call",
            f"x/{secret}",
            actor=secret,
            roles=(secret, "reader"),
            source=secret,
            resource=f"datasets/{secret}",
            code=secret,
            reason=secret,
            request=secret,
            used={
                "dataset": secret,
                "model": f"models/m/{secret}",
                "image": secret,
                "model_version": secret,
                "shift": secret,
                "digest": secret,
            },
        )
    )
    with pytest.raises(ValueError, match="no place"):
        log.append(Event("call", "a.B/C", used={"display_name": secret}))
    log.close()
    data = the_file(tmp_path).read_text()
    assert not any(word in data for word in ("Jane", "Doe", "1957-03"))
    record = json.loads(data.splitlines()[1])
    assert record["roles"] == ["reader"]
    assert record["used"] == {"model": "models/m"}
    assert record["actor"].startswith("hash:")
    assert record["request"].startswith("hash:")


def test_the_command_verifies_shows_and_exports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEO_HOME", str(tmp_path))
    assert main(["verify"]) == 3
    write(tmp_path)
    log = AuditLog(settings(tmp_path))
    log.start()
    log.append(EVENT)
    log.append(
        Event(
            "call",
            "oteo.automl.v1.AutoMLService/DeleteModel",
            actor="other",
            resource="models/a",
            code="NOT_FOUND",
            reason="MODEL_NOT_FOUND",
        )
    )
    log.close()
    capsys.readouterr()
    assert main(["verify"]) == 0
    assert "the log is intact" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "audit"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["intact"] is True
    for arguments, expected in (
        (["--actor", "reader"], ["Predict"]),
        (["--action", "Delete*"], ["DeleteModel"]),
        (["--resource", "models/*"], ["DeleteModel"]),
        (["--outcome", "MODEL_NOT_FOUND"], ["DeleteModel"]),
        (["--until", "2001-01-01"], []),
        (["--since", "2001-01-01", "--actor", "reader"], ["Predict"]),
    ):
        assert main(["show", "--json", *arguments]) == 0
        assert [json.loads(line)["action"].rpartition("/")[2] for line in capsys.readouterr().out.splitlines()] == expected
    assert main(["show", "--limit", "2"]) == 0
    assert "MODEL_NOT_FOUND" in capsys.readouterr().out.splitlines()[0]
    assert main(["export", "--output", str(tmp_path / "out.jsonl")]) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == the_file(tmp_path).read_bytes()
    the_file(tmp_path).write_bytes(b"".join(lines(tmp_path)[1:]))
    capsys.readouterr()
    assert main(["verify"]) == 1
    assert "NOT intact" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["verify", "--anchor", "nonsense"])
