"""Networks that can be written down without pickling code: a kind, its settings and its tensors.

Checkpoints lie in the artifact store, which other parts may write; reading one never runs what it holds.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
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
_FINDERS: list[Callable[[str], None]] = []


def saved(cls: type[SavedModule]) -> type[SavedModule]:
    """Make a class known under its kind; a decorator."""
    _KINDS[cls.kind] = cls
    return cls


def find_kinds(finder: Callable[[str], None]) -> None:
    """Have a package's function called with every kind that is not yet known: it imports the module that has it, or does nothing."""
    if finder not in _FINDERS:
        _FINDERS.append(finder)


def build(spec: Mapping[str, Any]) -> SavedModule:
    """Build a module from what `SavedModule.spec` gave; its tensors are not yet filled.

    Raises
    ------
    ValueError
        A kind that is not known.
    """
    kind = str(spec["kind"])
    for finder in _FINDERS:
        if kind not in _KINDS:
            finder(kind)
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


def to_planes(image: torch.Tensor) -> torch.Tensor:
    """Turn ``(N, H, W, C)`` uint8 or float32 of 0 to 1 into ``(N, C, H, W)`` float32 of 0 to 1."""
    planes = image.permute(0, 3, 1, 2)
    if image.dtype == torch.uint8:
        return planes.float() / 255.0
    return planes.float()
