"""Which forms there are, and which packages can be written in them; light, for the service."""

from __future__ import annotations

from oteo_core.errors import FailedPrecondition, InvalidArgument
from oteo_core.packages import ModelPackage
from oteo_core.packages.variants import GRAPHS, check_variant

NETWORK = "network.pt"
"""File of a package that holds its PyTorch network; see `oteo_automl.exporting.network_file`."""

FORMS: dict[str, bool] = {"onnx": False, "torchscript": True, "pytorch": True, "triton": False, "mlflow": False}
"""Forms by the lower-case names of ``ModelFormat`` in the contract; true where one is made from the PyTorch network."""


def check_form(package: ModelPackage, form: str, variant: str = "", *, tensorrt: bool = False) -> None:
    """Refuse a form that cannot be made of a package.

    Parameters
    ----------
    package
        The manifest.
    form
        Of `FORMS`.
    variant
        Of `oteo_core.packages.variants.KINDS`, in the place of the model; empty: the model.
    tensorrt
        True where TensorRT is asked for.

    Raises
    ------
    FailedPrecondition
        ``NO_NETWORK_FILE``, ``NO_VARIANT``.
    InvalidArgument
        ``VARIANT_NOT_FOR_FORM``, ``TENSORRT_NOT_FOR_FORM``.
    """
    if tensorrt and form != "triton":
        raise InvalidArgument(
            f"TensorRT is set in Triton's configuration, which {form} has not", reason="TENSORRT_NOT_FOR_FORM", field="tensorrt"
        )
    if variant and variant not in GRAPHS and (form != "triton" or tensorrt):
        raise InvalidArgument(
            f"{variant} is the model's own graph, run otherwise by Triton on a processor: export it as triton, without TensorRT",
            reason="VARIANT_NOT_FOR_FORM",
            field="variant",
        )
    if variant and FORMS[form]:
        raise InvalidArgument(
            f"{form} is made from the PyTorch network, and {variant} is a variant of the graph: export it as onnx, triton or mlflow",
            reason="VARIANT_NOT_FOR_FORM",
            field="variant",
        )
    if variant:
        check_variant(package, variant)
    if FORMS[form] and NETWORK not in package.files:
        raise FailedPrecondition(
            f"{package.name} holds no PyTorch network ({NETWORK}), so that it cannot be written as {form}: it was made before packages kept "
            "one, or its network is of a kind that cannot be kept. Export it as onnx, triton or mlflow, or train it again",
            reason="NO_NETWORK_FILE",
            field="format",
        )
