"""Networks that can be written down without pickling code: a kind, its settings and its tensors.

Checkpoints lie in the artifact store, which other parts may write; reading one never runs what it holds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

Spec = dict[str, Any]


class SavedModule(nn.Module):
    """A module that can be built again from its kind and settings, and then filled with its tensors.

    A subclass names itself in `kind` and passes every argument of its constructor, as JSON values, to this class's; all that
    fitting finds is kept in parameters and buffers whose shapes follow from those.
    """

    kind: ClassVar[str] = ""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def spec(self) -> Spec:
        """Give kind and settings, JSON values."""
        return {"kind": self.kind, "settings": self.settings}


_KINDS: dict[str, Callable[..., SavedModule]] = {}


def saved(cls: type[SavedModule]) -> type[SavedModule]:
    """Make a class known under its kind; a decorator."""
    _KINDS[cls.kind] = cls
    return cls


def build(spec: Mapping[str, Any]) -> SavedModule:
    """Build a module from what `SavedModule.spec` gave; its tensors are not yet filled.

    Raises
    ------
    ValueError
        A kind that is not known.
    """
    # Classes make themselves known when their modules are imported.
    from oteo_automl.candidates import descriptors, heads, networks, patches  # noqa: F401

    kind = str(spec["kind"])
    if kind == "served-detector":
        from oteo_automl.dense.detect import serving  # noqa: F401
    elif kind.endswith("-detector"):
        from oteo_automl.dense.detect.making import know_kind

        know_kind(kind)
    if kind not in _KINDS:
        from oteo_automl.dense.segment import kinds  # noqa: F401
    if kind not in _KINDS:
        raise ValueError(f"a module of unknown kind {kind!r}: the checkpoint is from another version")
    return _KINDS[kind](**spec["settings"])


def dump_module(module: SavedModule, **more: Any) -> bytes:
    """Write a module with its tensors, and more beside it: tensors, texts, numbers, and lists and dictionaries of them; no code is pickled."""
    buffer = io.BytesIO()
    state = {name: value.detach().cpu() for name, value in module.state_dict().items()}
    torch.save({"spec": module.spec(), "state": state, **more}, buffer)
    return buffer.getvalue()


def load_module(data: bytes) -> SavedModule:
    """Read the module that `dump_module` wrote; in evaluation mode, on the processor."""
    return load_with_more(data)[0]


def load_with_more(data: bytes) -> tuple[SavedModule, dict[str, Any]]:
    """Read a module, and all that `dump_module` wrote, by name."""
    content: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    module = build(content["spec"])
    module.load_state_dict(content["state"])
    return module.eval(), content


@saved
class Chain(SavedModule):
    """Modules one after the other."""

    kind = "chain"

    def __init__(self, parts: Sequence[Any]) -> None:
        modules = [part if isinstance(part, SavedModule) else build(part) for part in parts]
        super().__init__(parts=[module.spec() for module in modules])
        self.parts = nn.ModuleList(modules)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Apply all."""
        for part in self.parts:
            image = part(image)
        return image


@saved
class Blend(SavedModule):
    """Several classifiers' log-probabilities, each with its own temperature, weighted (weights sum to one).

    Where an image may have several labels (`several`), their logits are mixed instead: each label stands alone.
    """

    kind = "blend"

    def __init__(self, parts: Sequence[Any], weights: Sequence[float], temperatures: Sequence[float], several: bool = False) -> None:
        modules = [part if isinstance(part, SavedModule) else build(part) for part in parts]
        super().__init__(
            parts=[module.spec() for module in modules], weights=list(weights), temperatures=list(temperatures), several=several
        )
        self.parts = nn.ModuleList(modules)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``."""
        total: torch.Tensor | None = None
        for part, weight, temperature in zip(self.parts, self.settings["weights"], self.settings["temperatures"], strict=True):
            term = self.mixed(part(image), temperature) * weight
            total = term if total is None else total + term
        if total is None:
            raise ValueError("a blend of nothing")
        return total

    def mixed(self, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """Bring a part's logits ``(N, K)`` to the scale on which they are mixed."""
        scaled = logits / temperature
        return scaled.clamp(-30.0, 30.0) if self.settings["several"] else torch.log_softmax(scaled, dim=1)


def to_planes(image: torch.Tensor) -> torch.Tensor:
    """Turn ``(N, H, W, C)`` uint8 or float32 of 0 to 1 into ``(N, C, H, W)`` float32 of 0 to 1."""
    planes = image.permute(0, 3, 1, 2)
    if image.dtype == torch.uint8:
        return planes.float() / 255.0
    return planes.float()
