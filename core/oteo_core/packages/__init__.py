"""Model packages: what AutoML publishes, and what the gateway and the client read.

A package lies at ``models/{id}/`` in the artifact store and exists if ``package.json`` does, because that file is written last.
"""

from oteo_core.packages.answers import IGNORED, ClassMap, Detections, Instances, TrueBoxes
from oteo_core.packages.manifest import Conformal, MetricValue, ModelPackage, OperatingPoint, PackageFile, TrialRecord
from oteo_core.packages.reference import ReferenceStatistics, image_statistics, statistic_names
from oteo_core.packages.repository import MANIFEST, delete_model, list_models, model_prefix, read_model

__all__ = [
    "IGNORED",
    "MANIFEST",
    "ClassMap",
    "Conformal",
    "Detections",
    "Instances",
    "MetricValue",
    "ModelPackage",
    "OperatingPoint",
    "PackageFile",
    "ReferenceStatistics",
    "TrialRecord",
    "TrueBoxes",
    "delete_model",
    "image_statistics",
    "list_models",
    "model_prefix",
    "read_model",
    "statistic_names",
]
