"""``oteo audit``: the audit log's command, by its name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from oteo.cli import main
from oteo_core.auditlog import AuditLog, AuditSettings, Event
from oteo_core.auditlog.segments import segments_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OTEO_HOME", str(tmp_path))
    log = AuditLog(AuditSettings(audit_instance="door"))
    log.start()
    log.append(Event("call", "oteo.automl.v1.AutoMLService/TrainModel", actor="reader", resource="models/m", code="OK"))
    log.close()
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["oteo", "audit", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_log_is_shown_verified_and_exported(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "verify", "--json") == 0
    assert json.loads(capsys.readouterr().out)["intact"] is True
    assert run(monkeypatch, "show", "--actor", "reader") == 0
    assert "TrainModel models/m OK" in capsys.readouterr().out
    assert run(monkeypatch, "export", "--format", "atna", "--actor", "reader") == 0
    assert "<AuditMessage>" in capsys.readouterr().out
    path = segments_of(home / "audit/door")[0]
    path.write_bytes(path.read_bytes().replace(b"reader", b"nobody"))
    assert run(monkeypatch, "verify") == 1
    assert "FOUND CHANGED door" in capsys.readouterr().out


def test_help_says_which_audit_this_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    assert "datasets audit" in capsys.readouterr().out
    assert run(monkeypatch, "verify", "--help") == 0
    assert "--no-heads" in capsys.readouterr().out
