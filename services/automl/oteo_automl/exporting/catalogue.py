"""Which forms there are, and which packages can be written in them; light, for the service."""

from __future__ import annotations

from oteo_core.errors import FailedPrecondition
from oteo_core.packages import ModelPackage

NETWORK = "network.pt"
"""File of a package that holds its PyTorch network; see `oteo_automl.exporting.network_file`."""

FORMS: dict[str, bool] = {"onnx": False, "torchscript": True, "pytorch": True, "triton": False, "mlflow": False}
"""Forms by the lower-case names of ``ModelFormat`` in the contract; true where one is made from the PyTorch network."""


def check_form(package: ModelPackage, form: str) -> None:
    """Refuse a form that cannot be made of a package.

    Raises
    ------
    FailedPrecondition
        ``NO_NETWORK_FILE``.
    """
    if FORMS[form] and NETWORK not in package.files:
        raise FailedPrecondition(
            f"{package.name} holds no PyTorch network ({NETWORK}), so that it cannot be written as {form}: it was made before packages kept "
            "one, or its network is of a kind that cannot be kept. Export it as onnx, triton or mlflow, or train it again",
            reason="NO_NETWORK_FILE",
            field="format",
        )
