"""Dockerfiles and the compose file: what a linter and a careful reader ask of them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from charting import ROOT, SERVICES, default_values, environment, named, render, tool

from oteo_augment.settings import AugmentSettings
from oteo_automl.settings import AutoMLSettings
from oteo_core.auditlog.keys import load_keys
from oteo_core.deidentification.keys import load_key
from oteo_core.tokens import TokenFile
from oteo_gateway.settings import GatewaySettings
from oteo_translate.settings import TranslateSettings

DOCKERFILES = sorted([*ROOT.glob("services/*/Dockerfile"), *ROOT.glob("deploy/k8s/images/*/Dockerfile")])
BASE = ROOT / "deploy/k8s/images/base/Dockerfile"
"""What all but MLflow's and Triton's stand on."""
INSTALL = BASE.parent / "oteo-install"
COMPOSE = ROOT / "deploy/compose/compose.yaml"
PARTS = {"gateway", "augment", "automl", "translate", "ray", "mlflow", "triton"}


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    done = subprocess.run([tool("hadolint"), "--failure-threshold=info", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_the_last_stage_is_not_root_and_has_no_tools_to_build_with(path: Path) -> None:
    text = path.read_text()
    last = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.*)$", last, re.MULTILINE) == ["10001:10001"]
    assert "\nHEALTHCHECK " in last
    # What is not given here is in what the stage stands on.
    labels = last + (BASE.read_text() if last.startswith("\nFROM ${RUNTIME}") else "")
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert "org.opencontainers.image.title=" in last
    assert not re.search(r"pip install|pip wheel|oteo-install|build-essential|gcc|python3-pip|git\b", last)


def test_whatever_is_installed_is_locked() -> None:
    texts = [path.read_text() for path in (*DOCKERFILES, INSTALL)]
    commands = [part for text in texts for line in text.replace("\\\n", " ").splitlines() for part in line.split("&&")]
    installing = [part for part in commands if re.search(r"\bpip (--python \S+ )?(install|wheel)\b", part)]
    assert len(installing) >= 5
    assert all("--constraint constraints.txt" in part for part in installing)
    # Nobody but these installs.
    on_bases = [text for text in texts if "\nFROM ${BUILD} " in text]
    assert len(on_bases) == len(PARTS - {"mlflow", "triton"})
    assert all(len(re.findall(r"^RUN oteo-install ", text, re.MULTILINE)) == 1 for text in on_bases)


def test_there_is_an_image_of_every_part_and_make_builds_each_after_what_it_stands_on() -> None:
    assert {path.parent.name for path in DOCKERFILES} == PARTS | {"base"}
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "images", "REGISTRY=r.example/x", "VERSION=7"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    commands = done.stdout.splitlines()
    bases = [f"--target {name} --tag r.example/x/oteo-{name}:7 " for name in ("build", "runtime")]
    assert all(base in command for base, command in zip(bases, commands, strict=False))
    for path in DOCKERFILES:
        if path == BASE:
            continue
        (command,) = [one for one in commands if f"--file {path.relative_to(ROOT)} --tag r.example/x/oteo-{path.parent.name}:7 " in one]
        given = set(re.findall(r"--build-arg (\w+)=", command))
        assert given == ({"BUILD", "RUNTIME"} if "${RUNTIME}" in path.read_text() else {"VERSION", "REVISION"})
        assert all(f"\nARG {name}=" in path.read_text() for name in given)
    images = default_values()["images"]
    assert all(images[part] == f"oteo-{part}" for part in PARTS)


def test_a_dockerfile_of_a_service_says_only_what_is_its_own() -> None:
    """What two of them say alike is a form, not a step that could be mended in one and not in the other."""
    for part in SERVICES:
        text = (ROOT / f"services/{part}/Dockerfile").read_text()
        assert len([line for line in text.splitlines() if line and not line.startswith("#")]) <= 14
        assert not re.search(r"apt-get|pip |useradd|ENV ", text)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_what_is_copied_is_in_the_build_context(path: Path) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for sources in re.findall(r"^COPY (?!--from)(?:--\S+ )*(.*) \S+$", path.read_text(), re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
            assert any(source == one or source.startswith(f"{one}/") or one.startswith(f"{source}/") for one in kept), source


def test_containers_start_what_the_images_start() -> None:
    objects = render("single-node-cpu")
    for part in SERVICES:
        kind = "Deployment" if part == "gateway" else "StatefulSet"
        container = named(objects, kind, f"oteo-{part}")["spec"]["template"]["spec"]["containers"][0]
        text = (ROOT / f"services/{part}/Dockerfile").read_text()
        assert f"\nCMD {json.dumps(container['command'])}\n" in text
        (port,) = [one["containerPort"] for one in container["ports"] if one["name"] == "grpc"]
        assert f"EXPOSE {port} " in text


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
    return found


def test_compose_gives_services_settings_that_they_have() -> None:
    kinds = {"gateway": GatewaySettings, "augment": AugmentSettings, "automl": AutoMLSettings, "translate": TranslateSettings}
    services = compose()["services"]
    for name, kind in kinds.items():
        ours = {key.removeprefix("OTEO_").lower() for key in services[name]["environment"] if key.startswith("OTEO_")}
        assert ours <= set(kind.model_fields), name
        assert {"listen", "artifacts", "token_file", "triton_urls"} <= ours
    # What a cluster's ConfigMap says, the compose file says too: one path, not two.
    objects = render("single-node-cpu")
    cluster = environment(named(objects, "StatefulSet", "oteo-augment")["spec"]["template"]["spec"]["containers"][0], objects)
    missing = {name for name in cluster if name.startswith("OTEO_")} - set(services["augment"]["environment"])
    # Kinds of workers that a cluster adds when they are asked for: compose adds none.
    assert missing <= {"OTEO_DATABASE_URL", "OTEO_LOG_LEVEL", "OTEO_LOG_FORMAT", "OTEO_DRAIN_SECONDS", "OTEO_RAY_WORKERS"}


def test_compose_runs_everything_in_either_profile_and_opens_one_port() -> None:
    services = compose()["services"]
    for profile in ("cpu", "gpu"):
        on = {name for name, service in services.items() if profile in service.get("profiles", [profile])}
        assert on == {"postgresql", "s3", "migrations", "mlflow", *SERVICES, f"triton-{profile}", f"ray-{profile}"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"]
        assert bool(service.get("ports")) is (name == "gateway")
        assert ("deploy" in service) is name.endswith("-gpu")
    assert services["gateway"]["ports"][0].startswith("127.0.0.1:")
    assert compose()["networks"]["oteo"]["internal"] is True


def make_secrets(folder: Path) -> tuple[dict[str, str], str]:
    """Run the script beside a folder of its own; gives what all files hold, and what it says."""
    script = folder / "secrets.sh"
    script.write_text((COMPOSE.parent / "secrets.sh").read_text())
    done = subprocess.run(["sh", str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.name: path.read_text() for part in ("secrets", "access") for path in (folder / part).iterdir()}, done.stdout


def test_the_secrets_that_compose_wants_are_made_once(tmp_path: Path) -> None:
    first, _ = make_secrets(tmp_path)
    made, said = make_secrets(tmp_path)
    assert made == first
    assert "already" in said
    wanted = {Path(secret["file"]).name for secret in compose()["secrets"].values()}
    wanted |= {Path(file).name for service in compose()["services"].values() for file in service.get("env_file", [])}
    assert set(made) == wanted | {"tokens.json"}
    assert TokenFile(tmp_path / "access" / "tokens.json").read() == []
    assert len(made["token"]) == 48
    assert made["token"] != made["ray_token"]
    assert made["database_password"] in made["database.env"]
    assert made["database_password"] in made["mlflow.env"]
    assert re.findall("= (.*)", made["s3_credentials"]) == re.findall("=(.*)", made["s3.env"])
    assert made["s3_credentials"].startswith("[default]\n")
    # The containers' user may read what is mounted; nobody else of the machine comes into the folder.
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in (tmp_path / "secrets").iterdir())
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


def test_keys_that_compose_wants_are_keys_for_those_who_read_them(tmp_path: Path) -> None:
    made, _ = make_secrets(tmp_path)
    assert len(made["deidentification_key"]) == 64
    assert made["deidentification_key"] != made["audit_key"]
    assert load_key(tmp_path / "secrets/deidentification_key") == made["deidentification_key"].encode()
    assert load_keys(tmp_path / "secrets/audit_key")


def test_a_folder_of_secrets_from_before_gets_those_that_are_new(tmp_path: Path) -> None:
    first, _ = make_secrets(tmp_path)
    new = {"audit_key", "deidentification_key", "mlflow.env", "s3_credentials"}
    for name in new:
        (tmp_path / "secrets" / name).unlink()
    # Where the machine stopped while one was written.
    (tmp_path / "secrets/ray_token").write_text("")
    made, said = make_secrets(tmp_path)
    assert set(said.partition(":")[2].split()) == new | {"ray_token"}
    changed = {name for name in made if made[name] != first[name]}
    assert changed == {"audit_key", "deidentification_key", "ray_token"}
    assert min(len(made[name]) for name in changed) >= 48
    # Without the password that they are made of, the databases' addresses are made anew with it.
    (tmp_path / "secrets/database_password").unlink()
    made, _ = make_secrets(tmp_path)
    assert made["database_password"] != first["database_password"]
    assert all(made["database_password"] in made[name] for name in ("database.env", "mlflow.env"))


def test_compose_gives_one_key_of_hashes_to_all_that_handle_dicom() -> None:
    having = {name for name, service in compose()["services"].items() if "deidentification_key" in service.get("secrets", [])}
    assert having == {"gateway", "augment", "ray-cpu", "ray-gpu"}
    for name, service in compose()["services"].items():
        setting = (service.get("environment") or {}).get("OTEO_DEIDENTIFICATION_KEY_FILE")
        assert setting == ("/run/secrets/deidentification_key" if name in having else None), name
