"""Images are built here, without a registry, and what is in them is run as a pod would run it.

Debian made from its packages stands in for the CUDA image, which no registry here has: what is built on it, and how, is what `make images` does. The gateway's
image is built whole, with all its locked dependencies; Triton's is laid on ours, since NVIDIA's is not to be had. The other services' differ by their folder
alone, and one of those with PyTorch is built too: 7 GB, and three times as much while it is made.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

import grpc
import pytest
from building import Images, ImageSite, why_not
from charting import ROOT, render
from sites import METADATA, MakeSite
from waiting import patient

from oteo_protos.gateway.v1 import deployment_pb2, deployment_pb2_grpc, identity_pb2, identity_pb2_grpc

REASON = why_not()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(REASON is not None, reason=str(REASON)),
]
BUILDING = {"gcc", "cc", "g++", "clang", "ld", "as", "make", "cmake", "git", "pip", "pip3", "oteo-install"}
OURS = ("gateway", "runtime")
ROOM = 35e9


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    """Give a place with what images are built on."""
    built = Images(tmp_path_factory.mktemp("images"))
    try:
        built.make_base()
        yield built
    finally:
        # Mounts of its containers end, and nothing is left of some gigabytes.
        built.clear()


@pytest.fixture(scope="module")
def images(base: Images) -> Images:
    """Give the images that were built."""
    base.make("gateway")
    base.make("triton", base=base.name("runtime"))
    return base


def site_of(images: Images, make_site: MakeSite, part: str) -> ImageSite:
    """Give a site on which a part runs from its image."""
    site = make_site(render("single-node-cpu"), ImageSite)
    assert isinstance(site, ImageSite)
    site.roots, site.configured = {part: images.root(part)}, {part: images.configuration(part)}
    return site


def test_they_say_what_they_are_who_runs_and_how_health_is_asked(images: Images) -> None:
    for part, title in (("gateway", "oteo-gateway"), ("triton", "oteo-triton")):
        found = images.configuration(part)
        assert found["User"] == "10001:10001"
        labels = found["Labels"]
        assert labels["org.opencontainers.image.title"] == title
        assert labels["org.opencontainers.image.version"] == "1.2.3"
        assert labels["org.opencontainers.image.revision"]
        assert "Apache-2.0" in labels["org.opencontainers.image.licenses"]
        assert found["Healthcheck"]["Test"][0] == "CMD"
    gateway = images.configuration("gateway")
    assert gateway["Cmd"] == ["python", "-m", "oteo_gateway"]
    assert gateway["Healthcheck"]["Test"][1:] == ["python", "-m", "oteo_core.probe", "127.0.0.1:7000"]
    assert set(gateway["ExposedPorts"]) == {"7000/tcp", "9100/tcp"}
    assert gateway["WorkingDir"] == "/var/lib/oteo"


@pytest.mark.parametrize("part", OURS)
def test_nothing_in_them_builds_or_may_be_written_to_by_all(images: Images, part: str) -> None:
    root = images.root(part)
    seen = 0
    for path in images.files(part):
        status = path.lstat()
        mode = status.st_mode
        if S_ISLNK(mode) or not (S_ISREG(mode) or S_ISDIR(mode)):
            continue
        seen += 1
        place = path.relative_to(root)
        # Only where everybody keeps his own, as in /tmp.
        assert not mode & 0o002 or mode & 0o1000, place
        assert not (S_ISREG(mode) and S_IMODE(mode) & 0o6000), f"{place} runs as another"
        assert (status.st_uid, status.st_gid) != (10001, 10001) or place.is_relative_to("var/lib/oteo"), place
    assert seen > 3000
    there = {
        path.name
        for folder in ("usr/bin", "usr/sbin", "usr/local/bin", "opt/oteo/bin", "opt/tools/bin")
        for path in root.glob(f"{folder}/*")
    }
    assert {"python3", "sh"} <= there
    assert not BUILDING & there
    assert not list(root.glob("usr/include/*"))
    assert not list(root.glob("src/*"))
    assert not list(root.glob("var/lib/apt/lists/*_Packages"))


def test_the_gateway_has_the_locked_versions_and_no_more(images: Images, record_property: pytest.RecordProperty) -> None:
    pinned = dict(re.findall(r"^([\w.-]+)(?:\[[^]]*\])?==([^\s;]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    locked = {canonical(name): version for name, version in pinned.items()}
    site_packages = next(images.root("gateway").glob("opt/oteo/lib/python3*/site-packages"))
    found = {}
    for path in site_packages.glob("*.dist-info"):
        name, _, version = path.name.removesuffix(".dist-info").rpartition("-")
        found[canonical(name)] = version
    assert len(found) > 80
    ours = {name for name in found if name.startswith("oteo-")}
    assert ours == {"oteo-core", "oteo-gateway", "oteo-protos"}
    assert {name: version for name, version in found.items() if name not in ours and locked.get(name) != version} == {}
    # It infers nothing itself, so it starts without a gigabyte of PyTorch and CUDA to pull.
    assert not {name for name in found if name == "torch" or name.startswith("nvidia-")}
    # Compiled by what they say, not by their date: a container can keep nothing that it compiles itself.
    modules = [path for path in site_packages.glob("oteo_*/**/*.py") if path.stat().st_size]
    assert len(modules) > 100
    for path in modules:
        (compiled,) = (path.parent / "__pycache__").glob(f"{path.stem}.cpython-*.pyc")
        assert compiled.read_bytes()[4:8] == b"\x01\x00\x00\x00", path
    size, base = images.size("gateway"), images.size("runtime")
    record_property("bytes", size)
    print(f"the gateway's image: {size / 1e6:.0f} MB, of which {(size - base) / 1e6:.0f} MB above what it stands on")
    assert size - base < 2e9


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_gateway_runs_from_its_image_as_a_restricted_pod_until_its_health_answers(images: Images, make_site: MakeSite) -> None:
    """With what the chart renders for its container: command, variables, volumes; another user than root, no capabilities, a root that is read alone."""
    site = site_of(images, make_site, "gateway")
    with site:
        job = site.start("migrations")
        assert job.process.wait(patient(60)) == 0, job.log.read_text()[-3000:]
        gateway = site.start("gateway")
        gateway.wait(60)
        assert gateway.probe("livenessProbe")
        # The image's own way of asking, at the port that stands in for 7000.
        port = site.port("oteo-gateway", 7000)
        ask = [word.replace(":7000", f":{port}") for word in site.configured["gateway"]["Healthcheck"]["Test"][1:]]
        done = site.run("gateway", ask)
        assert done.returncode == 0, done.stderr
        assert site.run("gateway", [*ask[:-1], "127.0.0.1:1"]).returncode == 1
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            who = identity_pb2_grpc.IdentityServiceStub(channel).WhoAmI(identity_pb2.WhoAmIRequest(), timeout=120, metadata=METADATA)
            assert who.kind == identity_pb2.WhoAmIResponse.KIND_PART
            deployments = deployment_pb2_grpc.DeploymentServiceStub(channel)
            assert not deployments.ListDeployments(deployment_pb2.ListDeploymentsRequest(), timeout=120, metadata=METADATA).deployments
        status = process_status(gateway.process.pid)
        assert status["Uid"].split() == ["10001"] * 4
        assert status["Gid"].split() == ["10001"] * 4
        assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
        assert status["NoNewPrivs"] == "1"
        assert gateway.end() == 0, gateway.log.read_text()[-2000:]
        for place, may in (("/var/lib/oteo/x", True), ("/tmp/x", True), ("/opt/oteo/x", False), ("/etc/x", False), ("/x", False)):
            done = site.run("gateway", ["sh", "-c", f"echo > {place}"])
            assert (done.returncode == 0) is may, place
            assert may or "Read-only file system" in done.stderr or "Permission denied" in done.stderr


def process_status(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())


def test_pip_is_not_to_be_had_in_the_gateways_image(images: Images, make_site: MakeSite) -> None:
    site = site_of(images, make_site, "gateway")
    for module in ("pip", "setuptools", "ensurepip", "grpc_tools"):
        done = site.run("gateway", ["python", "-m", module, "--version"])
        assert done.returncode != 0, module
        assert "No module named" in done.stderr, done.stderr


def test_triton_asks_its_readiness_with_what_its_image_has(images: Images) -> None:
    root = images.root("triton")
    script = root / "usr/local/bin/oteo-triton-ready"
    assert script.read_text() == (ROOT / "deploy/k8s/images/triton/oteo_triton_ready.py").read_text()
    done = subprocess.run(
        ["chroot", "--userspec=10001:10001", str(root), "oteo-triton-ready", "--url=http://127.0.0.1:1", "--state=/tmp/state"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Triton does not answer" in done.stderr


@pytest.mark.skipif(
    shutil.disk_usage(tempfile.gettempdir()).free < ROOM, reason=f"an image with PyTorch takes {ROOM / 1e9:.0f} GB while it is built"
)
def test_a_service_with_pytorch_runs_from_its_image_until_its_health_answers(base: Images, make_site: MakeSite) -> None:
    base.make("automl")
    site = site_of(base, make_site, "automl")
    with site:
        automl = site.start("automl")
        automl.wait(100)
        assert automl.probe("livenessProbe")
        assert process_status(automl.process.pid)["Uid"].split() == ["10001"] * 4
        assert automl.end() == 0, automl.log.read_text()[-2000:]
    done = site.run("automl", ["python", "-c", "import torch, timm; print(torch.__version__)"])
    assert done.returncode == 0, done.stderr
    print(f"automl's image: {base.size('automl') / 1e6:.0f} MB, PyTorch {done.stdout.strip()}")
