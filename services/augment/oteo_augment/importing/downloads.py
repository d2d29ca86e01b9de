"""Public datasets by name: ``medmnist:pathmnist`` (also ``_64``, ``_128``, ``_224``) and ``torchvision:CIFAR10``.

What there is, where it lies and what its files' digests are is told by the packages `medmnist` and `torchvision`. Where no network exists, the
same files, brought by hand, can be imported as they are.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import requests

from oteo_augment.importing.archives import ArchiveLimits
from oteo_augment.importing.arrays import expand
from oteo_core.errors import InvalidArgument, NotFound, OteoError, Unavailable

SCHEMES = ("medmnist", "torchvision")
_SIZES = ("_64", "_128", "_224")
_BLOCK = 1 << 20
_TIMEOUT = (20, 120)
"""Seconds to wait for a connection, and for the next bytes."""
_MOST_SHOWN = 12


@dataclass(frozen=True)
class _Archive:
    """A file of MedMNIST: where it lies, its MD5 and its classes by number."""

    url: str
    md5: str
    classes: tuple[str, ...]


def is_download(uri: str) -> bool:
    """Tell whether a source is a public dataset by name."""
    scheme, colon, name = uri.partition(":")
    return bool(colon) and scheme in SCHEMES and not name.startswith("//")


def check_download(uri: str) -> None:
    """Refuse a name that is not known; no network is asked.

    Raises
    ------
    NotFound
        SOURCE_NOT_FOUND, with the names that are near.
    """
    scheme, _, name = uri.partition(":")
    known = _medmnist() if scheme == "medmnist" else _torchvision()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3) or sorted(known)[:_MOST_SHOWN]
        raise NotFound(f"{scheme} has no dataset {name!r}; it has {', '.join(near)}", reason="SOURCE_NOT_FOUND", field="source_uri")


def fetch(uri: str, goal: Path, limits: ArchiveLimits, check: Callable[[], None]) -> None:
    """Download a dataset and lay its pictures out in a folder that the readers know.

    Parameters
    ----------
    uri
        ``medmnist:NAME`` or ``torchvision:NAME``.
    goal
        A new folder.
    limits
        How far it may grow.
    check
        Called often; raises where the work is to stop.

    Raises
    ------
    NotFound
        SOURCE_NOT_FOUND.
    Unavailable
        NO_NETWORK where the place cannot be reached from here.
    InvalidArgument
        DAMAGED_ARCHIVE where what came is not what was promised, UNSAFE_ARCHIVE where it is too large.
    """
    check_download(uri)
    scheme, _, name = uri.partition(":")
    goal.mkdir(parents=True)
    if scheme == "medmnist":
        _fetch_medmnist(name, _medmnist()[name], goal, limits, check)
    else:
        _fetch_torchvision(name, goal, limits, check)


@cache
def _medmnist() -> dict[str, _Archive]:
    found: dict[str, _Archive] = {}
    for name, told in _medmnist_info().items():
        if "url" not in told or told["python_class"].endswith("3D"):
            continue  # volumes of 28 voxels a side are not read
        classes = tuple(told["label"][key] for key in sorted(told["label"], key=int))
        for size in ("", *_SIZES):
            if f"url{size}" in told:
                found[f"{name}{size}"] = _Archive(told[f"url{size}"], told[f"MD5{size}"], classes)
    return found


def _medmnist_info() -> dict[str, Any]:
    """Read the package's table alone: the package itself would load torch."""
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.submodule_search_locations:
        raise NotFound("the package medmnist is not installed beside the service", reason="SOURCE_NOT_FOUND", field="source_uri")
    table = importlib.util.spec_from_file_location("medmnist_info", Path(package.submodule_search_locations[0]) / "info.py")
    assert table is not None
    assert table.loader is not None
    module = importlib.util.module_from_spec(table)
    table.loader.exec_module(module)
    info: dict[str, Any] = module.INFO
    return info


def _fetch_medmnist(name: str, archive: _Archive, goal: Path, limits: ArchiveLimits, check: Callable[[], None]) -> None:
    file = goal.parent / f"{name}.npz"
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with requests.get(archive.url, stream=True, timeout=_TIMEOUT) as answer, file.open("wb") as stream:
            answer.raise_for_status()
            size = 0
            for block in answer.iter_content(_BLOCK):
                check()
                size += len(block)
                if size > limits.max_bytes:
                    raise InvalidArgument(
                        f"{archive.url} has more than {limits.max_bytes} bytes", reason="UNSAFE_ARCHIVE", field="source_uri"
                    )
                digest.update(block)
                stream.write(block)
    except requests.RequestException as exc:
        raise _unreachable(f"medmnist:{name}", archive.url, exc) from exc
    if digest.hexdigest() != archive.md5:
        raise InvalidArgument(
            f"what came from {archive.url} is not medmnist's {name}: its MD5 is {digest.hexdigest()}, not {archive.md5}. Try again.",
            reason="DAMAGED_ARCHIVE",
            field="source_uri",
        )
    expand(file, goal / name, limits, check, archive.classes)
    file.unlink()


@cache
def _torchvision() -> dict[str, Any]:
    """Give torchvision's classification datasets that download themselves, by name."""
    if importlib.util.find_spec("torchvision") is None:
        raise NotFound("the package torchvision is not installed beside the service", reason="SOURCE_NOT_FOUND", field="source_uri")
    from torchvision import datasets

    found = {}
    for name in datasets.__all__:
        kind = getattr(datasets, name)
        if not inspect.isclass(kind):
            continue
        parameters = inspect.signature(kind).parameters
        if "download" in parameters and ("train" in parameters or "split" in parameters) and name not in _NOT_CLASSES:
            found[name] = kind
    return found


_NOT_CLASSES = frozenset({"SBU", "PhotoTour", "HD1K", "Kitti", "SBDataset", "VOCDetection", "VOCSegmentation", "WIDERFace", "QMNIST", "EMNIST", "MovingMNIST", "CelebA", "INaturalist", "Kinetics", "UCF101", "HMDB51", "FakeData"})  # fmt: skip
"""Datasets that answer another question than which class a picture is of, or need to be told more."""


def _fetch_torchvision(name: str, goal: Path, limits: ArchiveLimits, check: Callable[[], None]) -> None:
    root = goal.parent / f"torchvision-{name}"
    written = 0
    for part, made in _parts(name, _torchvision()[name], root):
        classes = [str(one[0] if isinstance(one, tuple) else one) for one in getattr(made, "classes", ())]
        for index in range(len(made)):
            check()
            picture, label = made[index]
            text = classes[int(label)] if int(label) < len(classes) else str(int(label))
            path = goal / part / text.replace("/", "_") / f"{index:06}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)
            written += path.stat().st_size
            if written > limits.max_bytes:
                raise InvalidArgument(
                    f"torchvision:{name} has more than {limits.max_bytes} bytes", reason="UNSAFE_ARCHIVE", field="source_uri"
                )


def _parts(name: str, kind: Any, root: Path) -> Iterator[tuple[str, Any]]:
    """Give the parts that a dataset has, as torchvision's classes name them; what it lacks is passed over."""
    parameters = inspect.signature(kind).parameters
    ways: list[tuple[str, dict[str, Any]]]
    if "train" in parameters:
        ways = [("train", {"train": True}), ("test", {"train": False})]
    else:
        ways = [("train", {"split": "train"}), ("train", {"split": "trainval"}), ("val", {"split": "val"}), ("test", {"split": "test"})]
    given: set[str] = set()
    for part, options in ways:
        if part in given:
            continue
        try:
            made = kind(str(root), download=True, **options)
        except ValueError:
            continue  # it has no such part
        except OteoError:
            raise
        except (OSError, RuntimeError) as exc:
            raise _unreachable(f"torchvision:{name}", "its place", exc) from exc
        given.add(part)
        yield part, made


def _unreachable(uri: str, place: str, error: Exception) -> Unavailable:
    return Unavailable(
        f"{uri} cannot be downloaded from where the service runs: {place} does not answer ({type(error).__name__}). "
        "Download it on another machine and import or upload the file.",
        reason="NO_NETWORK",
        field="source_uri",
    )
