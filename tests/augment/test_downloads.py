"""Public datasets by name: what is known, what comes, and what is said where it does not come."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from oteo.names import source_uri
from oteo_augment.importing import downloads
from oteo_augment.importing.source import check_source
from oteo_core.errors import InvalidArgument, NotFound, OteoError, Unavailable


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and says nothing."""

    def log_message(self, *args) -> None:
        """Nothing."""


@pytest.fixture
def served(tmp_path) -> Iterator[tuple[Path, str]]:
    """A folder, and the URL at which its files are."""
    (tmp_path / "served").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def archive() -> bytes:
    """MedMNIST's form: 20 pictures, 4 and 6, of two classes."""
    generator = np.random.default_rng(1)
    stream = io.BytesIO()
    np.savez(
        stream,
        **{f"{part}_images": generator.integers(0, 255, (n, 28, 28, 3), np.uint8) for part, n in (("train", 20), ("val", 4), ("test", 6))},
        **{f"{part}_labels": (np.arange(n) % 2)[:, None] for part, n in (("train", 20), ("val", 4), ("test", 6))},
    )
    return stream.getvalue()


@pytest.fixture
def listed(served, monkeypatch) -> tuple[Path, str]:
    """MedMNIST's list with one dataset, served here."""
    folder, url = served
    data = archive()
    (folder / "drawn.npz").write_bytes(data)
    told = downloads._Archive(f"{url}/drawn.npz", hashlib.md5(data, usedforsecurity=False).hexdigest(), ("benign", "malignant, probably"))
    monkeypatch.setattr(downloads, "_medmnist", lambda: {"drawnmnist": told})
    return folder, url


def test_the_names_of_medmnist_are_known_with_their_classes():
    known = downloads._medmnist()
    assert {"pathmnist", "pathmnist_64", "pathmnist_224", "chestmnist", "bloodmnist", "organsmnist_128"} <= known.keys()
    assert not any("3d" in name for name in known)
    assert known["bloodmnist"].classes[:2] == ("basophil", "eosinophil")
    assert all(len(one.md5) == 32 and one.url.startswith("https://") for one in known.values())
    check_source("medmnist:bloodmnist")
    check_source("torchvision:CIFAR10")
    assert source_uri("medmnist:bloodmnist") == "medmnist:bloodmnist"


@pytest.mark.parametrize(
    ("uri", "near"), [("medmnist:pathmist", "pathmnist"), ("torchvision:cifar10", "CIFAR10"), ("medmnist:", "bloodmnist")]
)
def test_an_unknown_name_is_told_at_once(uri, near):
    with pytest.raises(NotFound) as refused:
        check_source(uri)
    assert (refused.value.reason, refused.value.field) == ("SOURCE_NOT_FOUND", "source_uri")
    assert near in refused.value.message or uri == "medmnist:"


def test_medmnist_comes_with_names_and_parts(listed, import_source):
    made = import_source("medmnist:drawnmnist")
    assert made.info.classes == ("benign", "malignant, probably")
    assert {split.split: split.sample_count for split in made.info.splits} == {"train": 20, "validation": 4, "test": 6}
    assert made.info.source == "medmnist:drawnmnist"


def test_what_does_not_come_or_is_not_it_is_said(listed, import_source, monkeypatch):
    folder, url = listed
    (folder / "drawn.npz").write_bytes(archive()[:-1])
    with pytest.raises(InvalidArgument) as refused:
        import_source("medmnist:drawnmnist")
    assert refused.value.reason == "DAMAGED_ARCHIVE"
    (folder / "drawn.npz").unlink()
    for place in (f"{url}/drawn.npz", "http://127.0.0.1:9/drawn.npz"):
        monkeypatch.setattr(downloads, "_medmnist", lambda place=place: {"drawnmnist": downloads._Archive(place, "0" * 32, ())})
        with pytest.raises(OteoError) as refused:
            import_source("medmnist:drawnmnist")
        assert isinstance(refused.value, Unavailable)
        assert (refused.value.reason, refused.value.field) == ("NO_NETWORK", "source_uri")


class Drawn:
    """A dataset as torchvision's are."""

    classes = ("round", "long/thin")

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split == "val":
            raise ValueError("there is no such part")
        if split == "trainval":
            raise AssertionError("the training part was there already")
        assert download
        self.count = 8 if split == "train" else 4

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(np.full((8, 8, 3), index * 20 + self.count, np.uint8)), index % 2


def test_torchvisions_parts_become_folders(import_source, monkeypatch):
    monkeypatch.setattr(downloads, "_torchvision", lambda: {"Drawn": Drawn})
    made = import_source("torchvision:Drawn")
    assert made.info.classes == ("long_thin", "round")
    assert {path.split("/")[0] for path in made.samples} == {"train", "test"}
    assert made.info.sample_count == 12


def test_torchvisions_own_list_is_of_labelled_pictures():
    known = downloads._torchvision()
    assert {"CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "EuroSAT"} - {"EuroSAT"} <= known.keys()
    assert not {"VOCDetection", "FakeData", "Kinetics"} & known.keys()
