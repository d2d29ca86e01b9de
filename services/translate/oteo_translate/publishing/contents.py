"""The files of a translator package, proved before they are published."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import Internal
from oteo_core.graphs.config import LABELS, config_pbtxt
from oteo_core.graphs.export import run_onnx
from oteo_core.graphs.parity import Parity, ParityClient, check_parity
from oteo_core.graphs.programs import PROGRAM
from oteo_core.packages import ModelPackage, PackageFile, model_prefix
from oteo_core.packages.translators import ENSEMBLE, TRANSLATION, triton_name
from oteo_translate.adaptation.base import AdaptedModel, outputs_of
from oteo_translate.ladder.result import LadderResult
from oteo_translate.methods.base import Translation
from oteo_translate.methods.graphs import ensemble_pbtxt, export_any_size, export_translation, translated_output, translator_pbtxt
from oteo_translate.tasks.model import TaskModel

ANY_SIZE = "translator.onnx"
"""Graph of a translation for images of any size."""

PAGE, SHEET, EVIDENCE = "report.html", "sheet.png", "evidence.json"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a real Triton is asked with.

    Parameters
    ----------
    client
        The server.
    name
        Of the model while it is checked, see `oteo_core.graphs.parity.parity_name`.
    remaining, sleep
        See `check_parity`.
    """

    client: ParityClient
    name: str
    remaining: Callable[[], float]
    sleep: Callable[[float], None]


def evidence_file(result: LadderResult) -> bytes:
    """Give all evidence as JSON."""
    return json.dumps(result.to_dict(), indent=1, ensure_ascii=False, allow_nan=False, default=_plain).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (np.floating, np.integer, np.bool_)):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")


def translation_files(
    translation: Translation,
    written: bytes,
    translator: str,
    model: TaskModel,
    served_by: ModelPackage,
    images: NDArray[Any],
    digest: str,
    proof: Proof,
) -> tuple[dict[str, bytes], Parity | None, str]:
    """Write a translation in every form that it has, and prove the served one.

    Parameters
    ----------
    translation, written
        What was chosen, and `oteo_core.graphs.modules.dump_module` of it.
    translator
        Id of the translator.
    model
        The frozen model; its package's input is the translation's.
    served_by
        The model behind it in the ensemble: the frozen one, or the one that was adapted.
    images
        Prepared shifted images ``(N, H, W, C)`` to compare on, N >= 1.
    digest
        Of the translation, for Triton's configuration.
    proof
        The real Triton.

    Returns
    -------
    files, parity, note
        By path inside the package; what Triton's check gave, None where the translation has no graph; a sentence where it has none.

    Raises
    ------
    FailedPrecondition, DeadlineExceeded
        See `check_parity`.
    """
    files = {TRANSLATION: written}
    if not translation.exportable:
        return files, None, "The method optimises each image by itself: it translates datasets and streams, and is not served by Triton."
    policy = model.package.input
    exported = export_translation(translation, policy, images)
    name = triton_name(translator)
    words = {"oteo_digest": digest, "oteo_translator": f"translators/{translator}"}
    config = translator_pbtxt(name, policy, words)
    output = translated_output(policy)
    expected = run_onnx(exported.data, images)
    parity = check_parity(
        proof.client, proof.name, config, {"1/model.onnx": exported.data}, images, [output], expected,
        remaining=proof.remaining, sleep=proof.sleep,
    )  # fmt: skip
    together = f"{served_by.triton_model}_{translator}"
    outputs = outputs_of(model)
    files |= {
        f"triton/{name}/1/model.onnx": exported.data,
        f"triton/{name}/config.pbtxt": config.encode(),
        ENSEMBLE: ensemble_pbtxt(together, name, served_by.triton_model, policy, outputs, parameters=words).encode(),
    }
    try:
        files[ANY_SIZE] = export_any_size(translation, policy.channels)
    except Internal as error:
        return files, parity, f"There is no graph for images of any size: {error.message}."
    return files, parity, ""


def adapted_package(
    artifacts: ArtifactStore,
    adapted: AdaptedModel,
    translator: str,
    source: ModelPackage,
    operation: str,
    method: str,
    images: NDArray[Any],
    proof: Proof,
) -> tuple[ModelPackage, dict[str, bytes], Parity]:
    """Make a model package of an adapted model, ``models/{translator}``, proved on Triton: it is deployed as any model is.

    What was measured of the frozen model at home (metrics, reference statistics, trials) is not of this one, and is left out; its calibration and
    thresholds are home's.

    Raises
    ------
    FailedPrecondition, DeadlineExceeded
        See `check_parity`.
    """
    graph = adapted.graph
    package = replace(
        source,
        id=translator,
        display_name=f"{source.display_name or source.id}, adapted by {method}",
        uid=hashlib.sha256(f"{operation}\0model".encode()).hexdigest()[:32],
        create_time=datetime.now(UTC),
        metrics=[],
        trials=[],
        reference=None,
        files={},
        operation=operation,
        run_id="",
        labels={**source.labels, "adapted_from": source.name, "adaptation": method},
        details={"adapted_from": source.name, "adapted_from_digest": source.digest, "adaptation": method, **dict(adapted.details)},
        package_uri="",
    )
    package.digest = package.serving_digest(hashlib.sha256(graph).hexdigest())
    if adapted.model.network is None:
        raise Internal("an adapted model without its network", reason="BROKEN_PACKAGE")
    outputs = [replace(one, labelled=one.name == "probabilities") for one in outputs_of(adapted.model)]
    words = {"oteo_digest": package.digest, "oteo_model": package.name}
    config = config_pbtxt(package.triton_model, package.input, outputs, parameters=words)
    prefix = model_prefix(source.id)
    served: dict[str, bytes] = {"1/model.onnx": graph}
    if LABELS in {name.rpartition("/")[2] for name in source.files}:
        served[LABELS] = artifacts.read_bytes(f"{prefix}/{source.triton_path}/{LABELS}")
    expected = run_onnx(graph, images)
    parity = check_parity(proof.client, proof.name, config, served, images, outputs, expected, remaining=proof.remaining, sleep=proof.sleep)
    package.parity_error = parity.error
    files = {f"{package.triton_path}/{name}": data for name, data in served.items()}
    files |= {f"{package.triton_path}/config.pbtxt": config.encode(), PROGRAM: adapted.program}
    package.files = named(files)
    return package, files, parity


def named(files: Mapping[str, bytes]) -> dict[str, PackageFile]:
    """Give digests and sizes."""
    return {name: PackageFile(hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()}
