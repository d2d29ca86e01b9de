"""The model packages in an artifact store; see `oteo_core.packages.shelf.Shelf` for what each function promises."""

from __future__ import annotations

from oteo_core.packages.manifest import ModelPackage
from oteo_core.packages.shelf import Shelf

MANIFEST = "package.json"
"""The file that makes a package exist."""

_MODELS = Shelf("model", MANIFEST, ModelPackage.from_json)

model_prefix = _MODELS.prefix
read_model = _MODELS.read
list_models = _MODELS.list
delete_model = _MODELS.delete
