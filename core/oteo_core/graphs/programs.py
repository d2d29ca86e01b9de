"""``network.pt2``: a served network as a program of PyTorch's operators, for whoever needs gradients, features or other statistics of it.

A package is served from its ONNX graph, which only answers. `torch.export` writes the same network as a list of operators and tensors that loads
with torch alone, without the classes that made it: its gradients can be had, the features at any depth can be read, and its normalisations can be
given other statistics. It is named beside the outputs in a JSON file within the archive.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
import zipfile
from collections.abc import Sequence
from typing import Any

import torch

from oteo_core.errors import DataLoss
from oteo_core.images import InputPolicy

PROGRAM = "network.pt2"
"""File of a package."""

MOST_IMAGES = 4096
"""Images that a program takes at once, at most."""

_ABOUT = "oteo.json"
_FORMAT = 1
_PAYLOADS = ("weight_", "tensor_")
_TARGETS = ("torch.ops.aten.", "torch.ops.higher_order.", "_operator.", "math.", "torch.sym_")
_SECONDS = 1.0
_SECONDS_A_MODULE = 0.03

_log = logging.getLogger(__name__)


def likely_seconds(served: torch.nn.Module) -> float:
    """Estimate what `write_program` takes on a processor core: measured 1 s (resnet10t) to 4 s (a U-Net that also looks at mirrored images) on a free one."""
    return _SECONDS + _SECONDS_A_MODULE * sum(1 for module in served.modules() if not any(module.children()))


def write_program(served: torch.nn.Module, policy: InputPolicy, outputs: Sequence[str]) -> bytes:
    """Write a served network as a program.

    Parameters
    ----------
    served
        From ``(N, H, W, C)`` as `oteo_core.images.prepare` gives it to a tuple of tensors ``(N, ...)``; on the processor, in evaluation mode.
    policy
        What it takes.
    outputs
        Names of what it gives, in their order.

    Returns
    -------
    bytes
        A PT2 archive of `torch.export.save`.

    Raises
    ------
    Exception
        Whatever `torch.export` raises of a network that it cannot write: a caller that can do without a program says so and goes on.
    """
    dtype = torch.uint8 if policy.dtype == "uint8" else torch.float32
    example = torch.zeros((2, policy.height, policy.width, policy.channels), dtype=dtype)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch", min=1, max=MOST_IMAGES)
        program = torch.export.export(served, (example,), dynamic_shapes=({0: batch},))
        return dump_program(program, outputs)


def dump_program(program: torch.export.ExportedProgram, outputs: Sequence[str]) -> bytes:
    """Write a program with the names of its outputs."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            # Where the network was written down, line by line: of no use to a reader, and it names folders of this machine.
            node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    about = {"format": _FORMAT, "outputs": list(outputs)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, buffer, extra_files={_ABOUT: json.dumps(about)})
    return buffer.getvalue()


def load_program(data: bytes) -> tuple[torch.export.ExportedProgram, tuple[str, ...]]:
    """Read a program, and the names of its outputs; runs nothing of what the archive holds.

    Raises
    ------
    DataLoss
        ``BROKEN_PACKAGE``: it cannot be read, is of a newer form, or holds what only running code could read.
    """
    try:
        _refuse_code(data)
        found: dict[str, Any] = {_ABOUT: ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(data), extra_files=found)
        about = json.loads(found[_ABOUT])
        form, outputs = int(about["format"]), tuple(str(name) for name in about["outputs"])
    except DataLoss:
        raise
    except Exception as error:
        raise DataLoss(f"{PROGRAM} of the package cannot be read: {error}", reason="BROKEN_PACKAGE") from error
    if form > _FORMAT:
        raise DataLoss(f"{PROGRAM} is of form {form}, and this program reads form {_FORMAT}", reason="BROKEN_PACKAGE")
    return program, outputs


def _refuse_code(data: bytes) -> None:
    """Refuse archives with pickled objects: PyTorch would run what they hold. What `dump_program` writes has plain tensors alone."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = {name.split("/", 1)[-1] for name in archive.namelist()}
        roots = {name.split("/", 1)[0] for name in archive.namelist()}
        if len(roots) != 1:
            raise DataLoss(f"{PROGRAM} is no archive of a program", reason="BROKEN_PACKAGE")
        root = roots.pop()
        for name in sorted(names):
            folder = name.rsplit("/", 1)[0]
            if name.startswith("data/aotinductor") or (folder in ("data/weights", "data/constants") and name.endswith(".pt")):
                raise DataLoss(f"{PROGRAM} holds {name}, which is not read", reason="BROKEN_PACKAGE")
            if name.startswith("data/sample_inputs/"):
                torch.load(io.BytesIO(archive.read(f"{root}/{name}")), map_location="cpu", weights_only=True)
            if name.endswith("_config.json"):
                for one in json.loads(archive.read(f"{root}/{name}"))["config"].values():
                    if one["use_pickle"] or not str(one["path_name"]).startswith(_PAYLOADS):
                        raise DataLoss(f"{PROGRAM} holds objects that only running code could read", reason="BROKEN_PACKAGE")
            if name.startswith("models/"):
                for target in _targets(json.loads(archive.read(f"{root}/{name}"))):
                    if not target.startswith(_TARGETS):
                        raise DataLoss(f"{PROGRAM} calls {target}, which is not known", reason="BROKEN_PACKAGE")


def _targets(value: Any) -> list[str]:
    """Give what the nodes of a program call, at any depth."""
    if isinstance(value, dict):
        own = [value["target"]] if isinstance(value.get("target"), str) and "inputs" in value else []
        return own + [target for part in value.values() for target in _targets(part)]
    if isinstance(value, list):
        return [target for part in value for target in _targets(part)]
    return []
