"""Pretrained weights that an operator or a caller names by a path or URI: found, and read without running code."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from oteo_core.artifacts import ArtifactStore, split_uri
from oteo_core.errors import InvalidArgument

if TYPE_CHECKING:
    import torch

_ENDINGS = (".pth", ".safetensors")


def find_weights_file(uri: str, names: tuple[str, ...], reason: str) -> tuple[ArtifactStore, str]:
    """Find a file of weights, without reading it.

    Parameters
    ----------
    uri
        A file, or a folder that holds one whose name begins with any of `names`, ``.pth`` or ``.safetensors``; of several the last by name. A local path,
        or anything that fsspec opens.
    names
        See `uri`.
    reason
        Of the error.

    Returns
    -------
    store, path
        The store that the file lies in, and its path there.

    Raises
    ------
    InvalidArgument
        `reason`: there is no such file.
    """
    store, path = split_uri(uri)
    if not store.is_file(path):
        found = [name for name in store.children(path) if name.startswith(names) and name.endswith(_ENDINGS)]
        if not found:
            wanted = " or ".join(f"{name}…" for name in names)
            raise InvalidArgument(f"{uri} holds no weights named {wanted}, {' or '.join(_ENDINGS)}", reason=reason)
        path = f"{path.rstrip('/')}/{max(found)}".lstrip("/")
    return store, path


def read_tensors(name: str, data: bytes) -> dict[str, torch.Tensor]:
    """Read a state dictionary from the content of a file called `name`. No pickled code is run; what cannot be read raises what the reader raises."""
    if name.endswith(".safetensors"):
        from safetensors.torch import load

        return load(data)
    import torch

    tensors: dict[str, Any] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return tensors
