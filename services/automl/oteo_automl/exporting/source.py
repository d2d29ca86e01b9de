"""What an export reads of a package, checked against the manifest's digests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import nn

from oteo_automl.exporting.catalogue import NETWORK
from oteo_automl.exporting.network_file import load_network, read_network
from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import DataLoss, NotFound
from oteo_core.packages import ModelPackage, model_prefix
from oteo_core.packages.variants import GRAPHS, variant_path


class Source:
    """A package to be exported.

    Parameters
    ----------
    store
        The artifact store.
    package
        Its manifest.
    variant
        Of `oteo_core.packages.variants.KINDS`: it stands in the model's place; empty: the model's own.
    tensorrt
        True: a Triton configuration asks for TensorRT on GPUs.
    """

    def __init__(self, store: ArtifactStore, package: ModelPackage, variant: str = "", *, tensorrt: bool = False) -> None:
        self._store = store
        self.package = package
        self.variant = variant
        self.tensorrt = tensorrt

    def read(self, name: str) -> bytes:
        """Give a file of the package.

        Raises
        ------
        DataLoss
            ``BROKEN_PACKAGE``: it is not there, or is not what was published.
        """
        try:
            data = self._store.read_bytes(f"{model_prefix(self.package.id)}/{name}")
        except NotFound as error:
            raise DataLoss(f"{name} of {self.package.name} is gone: train it again", reason="BROKEN_PACKAGE") from error
        known = self.package.files.get(name)
        if known is None or hashlib.sha256(data).hexdigest() != known.sha256:
            raise DataLoss(f"{name} of {self.package.name} is not the file that was published: train it again", reason="BROKEN_PACKAGE")
        return data

    @cached_property
    def graph(self) -> bytes:
        """The ONNX graph."""
        if self.variant in GRAPHS:
            return self.read(variant_path(self.variant))
        return self.read(f"{self.package.triton_path}/1/model.onnx")

    @property
    def config(self) -> bytes:
        """Triton's configuration."""
        if self.variant and self.variant not in GRAPHS:
            return self.read(variant_path(self.variant))
        return self.read(f"{self.package.triton_path}/config.pbtxt")

    @cached_property
    def network(self) -> nn.Module:
        """The served network in PyTorch, in evaluation mode."""
        return load_network(self.read(NETWORK))

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """What ``network.pt`` holds."""
        return read_network(self.read(NETWORK))

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        model = onnx.load_model_from_string(self.graph)
        return [value.name for value in model.graph.output]

    def described(self) -> dict[str, Any]:
        """Give what whoever runs the model needs to know, JSON values: ``model.json`` of most forms."""
        package = self.package
        conformal = package.conformal
        return {
            "name": package.name,
            "display_name": package.display_name,
            "digest": package.digest,
            "task": package.task,
            "classes": package.classes,
            "input": package.input.to_dict(),
            "outputs": self.outputs,
            "decoding": package.decoding,
            "conformal": {"quantile": conformal.quantile, "coverage": conformal.coverage} if conformal else None,
            "operating_points": [asdict(point) for point in package.operating_points],
            "variant": self.variant or "fp32",
            "candidate": package.candidate,
            "dataset": package.dataset,
            "dataset_digest": package.dataset_digest,
            "trained": package.create_time.isoformat(),
            "versions": package.versions,
        }

    def described_json(self) -> bytes:
        """Give `described` as a file."""
        return json.dumps(self.described(), indent=1, ensure_ascii=False).encode()

    def images(self, count: int) -> NDArray[Any]:
        """Draw images as the model takes them, ``(count, H, W, C)``: blots and noise, the same for equal packages.

        Two implementations of one network are compared on them; they need not look like the training images for that.
        """
        policy = self.package.input
        rng = np.random.Generator(np.random.Philox(key=int(self.package.digest[:16] or "0", 16)))
        coarse = rng.random((count, 8, 8, policy.channels))
        rows = np.arange(policy.height) * 8 // policy.height
        columns = np.arange(policy.width) * 8 // policy.width
        values = 0.8 * coarse[:, rows][:, :, columns] + 0.2 * rng.random((count, policy.height, policy.width, policy.channels))
        return (values * 255).astype(np.uint8) if policy.dtype == "uint8" else values.astype(np.float32)
