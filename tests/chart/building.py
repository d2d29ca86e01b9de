"""Container images built by buildah without a registry, and their processes run as a cluster would run them."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from charting import ROOT, environment
from running import Process, Site, container_of

TOOLS = ("buildah", "debootstrap", "unshare", "setpriv")
DEBIAN = "bookworm"
"""Its Python is the oldest that Oteo takes."""
BASE = "localhost/oteo-test-base:latest"
OUTSIDE = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH")


def why_not() -> str | None:
    """Say why no image can be built here; nothing where one can."""
    lacking = [name for name in TOOLS if shutil.which(name) is None]
    if lacking:
        return f"IMAGES ARE NOT BUILT: {', '.join(lacking)} not found (`make system-long`, or Debian: apt-get install buildah debootstrap)"
    return None if os.geteuid() == 0 else "IMAGES ARE NOT BUILT: this needs root, since debootstrap does"


def pip_settings() -> tuple[str, set[Path]]:
    """Give what pip is told on this machine, as a file, and the folders and files that it names."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    said: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        if key in ("cert", "index-url", "extra-index-url", "find-links", "trusted-host", "default-timeout", "proxy"):
            said[key] = str(ast.literal_eval(value))
    paths = {Path(word.removeprefix("file://")) for value in said.values() for word in value.split()}
    there = {path for path in paths if path.is_absolute() and path.exists()}
    # An index beside its files points at them with a relative link.
    there = {path.parent if path.name == "simple" else path for path in there}
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in said.items()), there


@dataclass
class Images:
    """Images in a store of their own, which is a folder."""

    folder: Path
    containers: dict[str, str] = field(default_factory=dict)

    @property
    def engine(self) -> list[str]:
        """The command before its verb."""
        return ["buildah", f"--root={self.folder / 'store'}", f"--runroot={self.folder / 'run'}", "--storage-driver=vfs"]

    def buildah(self, *arguments: str) -> str:
        """Run buildah; gives what it prints."""
        done = subprocess.run([*self.engine, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr[-3000:]}"
        return done.stdout.strip()

    def make_base(self) -> None:
        """Make an image of Debian alone, from its packages."""
        root = self.folder / "debian"
        command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", DEBIAN, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, str(root), "/")
        self.buildah("commit", "--quiet", "--rm", container, BASE)
        shutil.rmtree(root)

    @cached_property
    def flags(self) -> str:
        """Flags of a build: where pip looks on this machine it looks in the build too, and nothing is fetched but by it and apt."""
        text, paths = pip_settings()
        settings = self.folder / "pip.conf"
        settings.write_text(text)
        volumes = [f"{settings}:/etc/pip.conf:ro", *(f"{path}:{path}:ro" for path in sorted(paths))]
        return " ".join(["--isolation=chroot", "--format=docker", "--pull-never", *(f"--volume={volume}" for volume in volumes)])

    def make(self, part: str, base: str = BASE) -> None:
        """Build the image of a part by the Makefile, on a base of this machine."""
        flags = f"{self.flags} --build-arg=BASE={base}"
        command = ["make", f"image-{part}", f"ENGINE={' '.join(self.engine)}", f"IMAGE_FLAGS={flags}", "VERSION=1.2.3"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]

    def configuration(self, part: str) -> dict[str, Any]:
        """Give what an image says of itself."""
        found: dict[str, Any] = json.loads(self.buildah("inspect", "--type=image", self.name(part)))["Docker"]["config"]
        return found

    def size(self, part: str) -> int:
        """Give the bytes of the files that an image holds."""
        return sum(path.lstat().st_size for path in self.files(part) if not path.is_symlink() and path.is_file())

    def files(self, part: str, below: str = "") -> Iterable[Path]:
        """Give the paths of an image's files and folders."""
        return (self.root(part) / below).rglob("*")

    def root(self, part: str) -> Path:
        """Give the folder that an image's files are laid out in."""
        if part not in self.containers:
            self.containers[part] = self.buildah("from", "--pull-never", self.name(part))
        return Path(self.buildah("mount", self.containers[part]))

    def clear(self) -> None:
        """Take everything away."""
        for container in self.containers.values():
            subprocess.run([*self.engine, "umount", container], capture_output=True, check=False)
        subprocess.run([*self.engine, "rm", "--all"], capture_output=True, check=False)
        subprocess.run([*self.engine, "rmi", "--all", "--force"], capture_output=True, check=False)
        shutil.rmtree(self.folder)

    @staticmethod
    def name(part: str) -> str:
        """Give an image's name."""
        return f"localhost/oteo-{part}:1.2.3"


def confined(root: Path, mounts: Mapping[str, Path | None], command: list[str]) -> list[str]:
    """Give a command that runs another inside an image's files as a restricted pod does: no root, nothing to gain, a root that is not written to.

    Parameters
    ----------
    root
        The image's files.
    mounts
        Volumes by where they are seen: a folder, which is read alone; or nothing, for an empty one to write to.
    command
        What to run.
    """
    steps = [f"mount --bind {root} {root}"]
    steps += [f"mount --rbind /{name} {root}/{name}" for name in ("proc", "dev", "sys")]
    # A pod knows names by the cluster's resolver, this one by the machine's.
    steps += [f"mount --bind /etc/resolv.conf {root}/etc/resolv.conf || true"]
    for place, source in mounts.items():
        # Those of the image itself are there; the rest a container engine makes.
        steps.append(f"mkdir -p {root}{place}")
        empty = f"mount -t tmpfs -o size=2g,uid=10001,gid=10001 volume {root}{place}"
        steps.append(f"mount --bind -o ro {source} {root}{place}" if source else empty)
    steps.append(f"mount -o remount,bind,ro {root}")
    steps.append(
        f'cd / && exec chroot {root} setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"'
    )
    return ["unshare", "--mount", "--propagation=private", "sh", "-euc", "\n".join(steps), "sh", *command]


class ImageSite(Site):
    """A site whose parts run from their images."""

    roots: Mapping[str, Path]
    configured: Mapping[str, dict[str, Any]]

    def path(self, value: str, part: str) -> str:
        """Give a path as it is: volumes are mounted where the pod has them."""
        return value

    def image_of(self, part: str) -> str:
        """Give the image that a part runs from."""
        found: list[str] = re.findall(r"oteo-(\w+):", container_of(self.objects, part)["image"])
        return found[0]

    def environment(self, part: str) -> dict[str, str]:
        """Give a container's variables on top of the image's."""
        image = dict(line.split("=", 1) for line in self.configured[self.image_of(part)]["Env"])
        own = {name: value for name, value in super().environment(part).items() if name not in OUTSIDE}
        # What this machine has of the interpreter's is nothing of the image's.
        rendered = environment(container_of(self.objects, part), self.objects)
        return {**image, **{name: value for name, value in own.items() if name in rendered}}

    def confine(self, part: str, command: list[str]) -> list[str]:
        """Give the command that runs another as the part's container would."""
        mounts: dict[str, Path | None] = {}
        for mount in container_of(self.objects, part)["volumeMounts"]:
            source = self.folder / mount["mountPath"].lstrip("/")
            mounts[mount["mountPath"]] = source if source.is_dir() else None
        return confined(self.roots[self.image_of(part)], mounts, command)

    def start(self, part: str) -> Process:
        """Start a part from its image."""
        container = container_of(self.objects, part)
        (self.folder / part / "tmp").mkdir(parents=True, exist_ok=True)
        command = self.confine(part, container.get("command") or self.configured[self.image_of(part)]["Cmd"])
        process = Process(self, part, container, command, self.environment(part))
        self.processes.append(process)
        return process

    def run(self, part: str, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a command beside a part, in a container like its own."""
        return subprocess.run(self.confine(part, command), env=self.environment(part), capture_output=True, text=True, check=False)
