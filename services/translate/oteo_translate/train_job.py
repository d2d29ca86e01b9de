"""TrainTranslator's job: the ladder climbed, its choice proved and published below ``translators/{id}``."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader
from oteo_core.errors import NotFound
from oteo_core.graphs.modules import dump_module
from oteo_core.graphs.parity import parity_name
from oteo_core.graphs.triton import TritonParityClient
from oteo_core.images import ImageLimits, encode_png
from oteo_core.jobs import JobContext, JobHandler
from oteo_core.packages import MANIFEST, ModelPackage, ReferenceStatistics, image_statistics, model_prefix, statistic_names
from oteo_core.packages.translators import (
    ADAPTED_MODEL,
    IMAGE,
    MODEL,
    TRANSLATOR_MANIFEST,
    TranslatorPackage,
    read_translator,
    translator_prefix,
)
from oteo_core.packages.versions import versions
from oteo_protos.translate.v1 import translate_pb2
from oteo_protos.type.v1 import image_pb2
from oteo_translate.adaptation.base import AdaptedModel
from oteo_translate.adaptation.registry import ADAPTATIONS
from oteo_translate.domains import Domain
from oteo_translate.ladder.anatomy import translate
from oteo_translate.ladder.ladder import climb
from oteo_translate.ladder.result import LABEL_FREE, NOTHING, WITH_LABELS, Evidence, LadderResult
from oteo_translate.measures.encoders import Encoder as Inception
from oteo_translate.measures.inception import CHANNELS, measure_by_inception
from oteo_translate.methods.base import STYLE, FitContext, Translation
from oteo_translate.methods.registry import METHODS
from oteo_translate.methods.style.encoder import Encoder
from oteo_translate.placing import choose_device
from oteo_translate.proto import record_to_proto, translator_to_proto
from oteo_translate.publishing.contents import (
    EVIDENCE,
    PAGE,
    SHEET,
    Proof,
    adapted_package,
    evidence_file,
    named,
    translation_files,
)
from oteo_translate.publishing.page import trainings_of, write_page
from oteo_translate.publishing.sheet import Row, draw_sheet
from oteo_translate.reading import Reading, home_samples, read_domain, usable
from oteo_translate.tasks.model import TaskModel, open_second, open_task_model
from oteo_translate.train_requests import given_parameters, open_request, open_request_encoder, open_setting_inception

Context = JobContext[translate_pb2.TrainTranslatorRequest, translate_pb2.TrainTranslatorMetadata]

_FOLDER, _MODEL_FOLDER = "translator", "model"
_LIBRARIES = ("torch", "onnx", "onnxruntime", "numpy", "scipy", "opencv-python-headless", "kornia")
_RESERVE, _RESERVE_SHARE = 20.0, 0.25
"""Seconds of the budget that are kept for proof and report, a quarter of it at most."""
_INCEPTION, _INCEPTION_SHARE = 60.0, 0.15
"""Seconds of the budget that are kept for distances by Inception where its weights are given, this share of it at most."""
_READ, _CLIMBED = 0.1, 0.9
"""Shares of all that is done when the images are read, and when the ladder is climbed."""
_PARITY_IMAGES = 12
_SHEET_ROWS = 6
_PREVIEW_SIDE = 512
_BEGAN = "began"


def run(context: Context) -> translate_pb2.TrainTranslatorResponse:
    """Climb, choose, prove, publish. Killed and run again, finished trainings are taken up from their checkpoints."""
    request, artifacts = context.request, context.artifacts
    target = context.metadata.translator.removeprefix("translators/")
    try:
        done = read_translator(artifacts, target)
        if done.operation == f"operations/{context.operation_id}":
            return translate_pb2.TrainTranslatorResponse(translator=translator_to_proto(done))
    except NotFound:
        pass
    budget = request.budget.ToNanoseconds() / 1e9
    deadline = _began(context) + budget
    device = choose_device(context.placing)
    package, home_reader, shifted_reader = open_request(artifacts, request)
    encoder = open_request_encoder(request, context.settings.encoder_uri)
    inception = open_setting_inception(context.settings.inception_uri, device.name)
    context.progress(0.0, "reading images", device.words)
    model = open_task_model(artifacts, package)
    home, shifted, notes = _domains(context, package, home_reader, shifted_reader)
    if device.short:
        notes.append(f"The training {device.words}.")
    context.check()
    methods, adaptations = _asked(list(request.methods))
    second = open_second(artifacts, package)
    reserve = min(_RESERVE, _RESERVE_SHARE * budget)
    until = deadline - reserve - (min(_INCEPTION, _INCEPTION_SHARE * budget) if inception is not None else 0.0)
    result, translations = _climb(context, model, second, encoder, shifted, home, methods, adaptations, until)
    notes += _seen_with(result, encoder, package)
    if second is None and result.criterion == LABEL_FREE:
        notes.append("No second network could be asked for its opinion: the model's package has none.")
    context.progress(_CLIMBED, "proving the choice")

    def measure(best: Evidence, translation: Translation | None) -> list[str]:
        return _by_inception(context, inception, home, shifted, result, best, translation, deadline - reserve / 2)

    digests = home_reader.info.digest, shifted_reader.info.digest
    translator = _publish(context, target, package, model, shifted, home, result, translations, notes, digests, deadline, measure)
    context.progress(1.0, "done", translator.reason)
    return translate_pb2.TrainTranslatorResponse(translator=translator_to_proto(translator))


def _began(context: Context) -> float:
    """Give when the work first began, seconds since 1970: the budget counts no wait for a GPU, and does not begin anew after a kill."""
    kept = context.load(_BEGAN)
    if kept is None:
        kept = repr(time.time()).encode()
        context.save(_BEGAN, kept)
    return float(kept)


def _domains(context: Context, package: ModelPackage, home: DatasetReader, shifted: DatasetReader) -> tuple[Domain, Domain, list[str]]:
    limits = ImageLimits(max_bytes=context.settings.max_image_bytes, max_pixels=context.settings.max_image_pixels)
    labelled = not context.request.label_free
    ours, notes = home_samples(home, package if package.dataset == f"datasets/{home.info.id}" else None)
    read: list[Reading] = []
    for place, (reader, samples) in enumerate(((home, ours), (shifted, usable(shifted)))):
        read.append(
            read_domain(
                reader,
                package.input,
                context.scratch,
                samples=samples,
                task=package.task if place == 0 or labelled else "",
                classes=package.classes,
                seed=context.request.seed,
                limits=limits,
                check=context.check,
                progress=_part(context, place * _READ / 2, _READ / 2, "reading images"),
            )
        )
    for reading in read:
        if reading.unread:
            first = reading.unread[0]
            notes.append(
                f"{len(reading.unread)} images or annotations of {reading.domain.name} could not be used, the first is {first.sample} ({first.reason})."
            )
        if len(reading.domain) < reading.available:
            notes.append(f"{len(reading.domain)} of the {reading.available} images of {reading.domain.name} took part.")
    return read[0].domain, read[1].domain, notes


def _part(context: Context, start: float, width: float, stage: str) -> Callable[[float], None]:
    return lambda share: context.progress(start + width * share, stage)


def _asked(names: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    if not names:
        return dict(METHODS), dict(ADAPTATIONS)
    return {name: METHODS[name] for name in names if name in METHODS}, {name: ADAPTATIONS[name] for name in names if name in ADAPTATIONS}


def _climb(
    context: Context,
    model: TaskModel,
    second: TaskModel | None,
    encoder: Encoder | None,
    shifted: Domain,
    home: Domain,
    methods: dict[str, Any],
    adaptations: dict[str, Any],
    deadline: float,
) -> tuple[LadderResult, dict[int, Translation]]:
    metadata = context.metadata
    start = time.time()
    translations: dict[int, Translation] = {}

    def progress(share: float, word: str) -> None:
        done = min(1.0, (time.time() - start) / max(1.0, deadline - start))
        context.progress(_READ + (_CLIMBED - _READ) * done, f"trying {word}", predicted_end=datetime.fromtimestamp(deadline, UTC))

    def seen(evidence: Evidence, translation: Translation | None, adapted: AdaptedModel | None) -> None:
        if translation is not None:
            translations[id(evidence)] = translation
        if evidence.tried:
            metadata.evidence.append(record_to_proto(evidence.record()))

    def picture(sheet: NDArray[Any]) -> None:
        metadata.preview.CopyFrom(image_pb2.EncodedImage(content=encode_png(_small(sheet)), media_type="image/png"))

    result = climb(
        model,
        shifted,
        home,
        methods=methods,
        adaptations=adaptations,
        second=second,
        given=given_parameters(context.request),
        context=FitContext(
            seed=context.request.seed,
            deadline=deadline,
            check=context.check,
            progress=progress,
            encoder=encoder,
            device=choose_device(context.placing).name,
            save=context.save,
            load=context.load,
            picture=picture,
        ),
        seen=seen,
    )
    _tell(context, result)
    return result, translations


def _tell(context: Context, result: LadderResult) -> None:
    metadata = context.metadata
    del metadata.evidence[:]
    metadata.evidence.extend(record_to_proto(one.record()) for one in result.evidence)


def _by_inception(
    context: Context,
    inception: Inception | None,
    home: Domain,
    shifted: Domain,
    result: LadderResult,
    best: Evidence,
    translation: Translation | None,
    until: float,
) -> list[str]:
    """Put distances by Inception into the evidence of doing nothing and of what is published; give what is to be said of them."""
    if inception is None:
        return []
    if home.channels not in CHANNELS:
        return [f"Nothing was measured by Inception: it takes images of 1 or 3 channels, these have {home.channels}."]
    context.progress(_CLIMBED, "measuring by Inception")
    translated = None if translation is None else partial(translate, translation, check=context.check)
    before, after = measure_by_inception(inception, home, shifted, translated, until=until, seed=context.request.seed, check=context.check)
    if not before:
        return ["Nothing was measured by Inception: there was no time left for it, or its answers were no numbers."]
    nothing = next(one for one in result.evidence if one.candidate.name == NOTHING)
    nothing.figures |= before
    if translation is not None:
        best.figures |= after
    _tell(context, result)
    return [f"Distances by Inception stand on {inception.source}."]


def _seen_with(result: LadderResult, encoder: Encoder | None, package: ModelPackage) -> list[str]:
    """Say which network style transfer saw with, where any was tried."""
    names = {one.candidate.method for one in result.evidence if one.tried and one.candidate.method}
    style = sorted(name for name in names if METHODS[name].kind == STYLE)
    if not style:
        return []
    seen = encoder.source if encoder is not None else f"the network of {package.name}"
    return [f"Style transfer ({', '.join(style)}) saw with {seen}."]


def _small(sheet: NDArray[Any]) -> NDArray[np.uint8]:
    scale = min(1.0, _PREVIEW_SIDE / max(sheet.shape[:2]))
    size = max(1, round(sheet.shape[1] * scale)), max(1, round(sheet.shape[0] * scale))
    small = np.asarray(cv2.resize(np.ascontiguousarray(sheet), size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return small.reshape(size[1], size[0], -1)


def _publish(
    context: Context,
    target: str,
    package: ModelPackage,
    model: TaskModel,
    shifted: Domain,
    home: Domain,
    result: LadderResult,
    translations: dict[int, Translation],
    notes: list[str],
    digests: tuple[str, str],
    deadline: float,
    measure: Callable[[Evidence, Translation | None], list[str]],
) -> TranslatorPackage:
    request, artifacts = context.request, context.artifacts
    operation = f"operations/{context.operation_id}"
    best = result.choice or next((one for one in result.evidence if one.candidate.name != NOTHING and one.tried), result.evidence[0])
    translation = result.translation or translations.get(id(best))
    adapted = result.adapted
    client = TritonParityClient(context.settings.triton_urls[0])
    proof = Proof(client, parity_name(context.operation_id), lambda: deadline - time.time(), _waiting(context))
    rows = np.unique(np.linspace(0, len(shifted) - 1, min(_PARITY_IMAGES, len(shifted))).astype(np.int64))
    images = np.ascontiguousarray(shifted.images[rows])
    files: dict[str, bytes] = {}
    details: dict[str, Any] = {"climb": result.details, "judged_images": result.judged[0], "judged_groups": result.judged[1]}
    details["runs_on"] = choose_device(context.placing).words
    served_by = package
    adapted_files: dict[str, bytes] = {}
    try:
        if adapted is not None:
            served_by, adapted_files, parity = adapted_package(
                artifacts, adapted, target, package, operation, best.candidate.adaptation, images, proof
            )
            details |= {ADAPTED_MODEL: served_by.name, "adapted_parity_error": parity.error}
        written = dump_module(translation) if translation is not None else b""
        digest = hashlib.sha256(written + served_by.digest.encode() + best.candidate.label.encode()).hexdigest()
        if translation is not None:
            files, found, note = translation_files(translation, written, target, model, served_by, images, digest, proof)
            notes += [note] if note else []
            if found is not None:
                details |= {"parity_error": found.error, "parity_images": found.count}
    finally:
        client.close()
    notes += measure(best, translation)
    translator = TranslatorPackage(
        id=target,
        display_name=request.display_name or target,
        uid=hashlib.sha256(f"{context.operation_id}\0{target}".encode()).hexdigest()[:32],
        model=package.name,
        model_digest=package.digest,
        home_dataset=request.home_dataset,
        shifted_dataset=request.shifted_dataset,
        home_digest=digests[0],
        shifted_digest=digests[1],
        method=best.candidate.name,
        parameters=best.candidate.all_parameters,
        changes=MODEL if best.candidate.name != NOTHING and not best.candidate.method else IMAGE,
        accepted=result.accepted,
        reason=result.reason,
        criterion="labels" if result.criterion == WITH_LABELS else "label-free",
        shifted_reference=_reference(shifted),
        input=package.input,
        create_time=datetime.now(UTC),
        evidence=[one.record() for one in result.evidence],
        versions=versions(_LIBRARIES),
        seed=request.seed,
        budget=request.budget.ToNanoseconds() / 1e9,
        training_time=time.time() - context.create_time.timestamp(),
        operation=operation,
        digest=digest,
        details=details | {"notes": notes},
    )
    sheet = encode_png(_sheet(context, model, adapted, translation, shifted, home, translator.changes == IMAGE and translation is not None))
    when = context.create_time.strftime("%Y-%m-%d %H:%M UTC")
    page = write_page(translator, result, sheet, notes, when, trainings_of(result, translations))
    files |= {EVIDENCE: evidence_file(result), SHEET: sheet, PAGE: page}
    if adapted is not None:
        _stage(context, _MODEL_FOLDER, adapted_files, MANIFEST, served_by.to_json())
        context.publish(model_prefix(target), MANIFEST, subdir=_MODEL_FOLDER)
    translator.files = named(files)
    _stage(context, _FOLDER, files, TRANSLATOR_MANIFEST, translator.to_json())
    context.publish(translator_prefix(target), TRANSLATOR_MANIFEST, subdir=_FOLDER)
    return replace(translator, package_uri=artifacts.uri(translator_prefix(target)))


def _reference(shifted: Domain) -> ReferenceStatistics:
    rows = np.stack([image_statistics(image) for image in shifted.images])
    return ReferenceStatistics.fit(rows, statistic_names(shifted.images.shape[3]))


def _waiting(context: Context) -> Callable[[float], None]:
    def wait(seconds: float) -> None:
        context.check()
        time.sleep(seconds)

    return wait


def _stage(context: Context, folder: str, files: dict[str, bytes], manifest: str, content: bytes) -> None:
    store: ArtifactStore = context.artifacts
    store.delete(f"{context.staging}/{folder}")
    for name, data in files.items():
        store.write_bytes(f"{context.staging}/{folder}/{name}", data)
    store.write_bytes(f"{context.staging}/{folder}/{manifest}", content)


def _sheet(
    context: Context,
    model: TaskModel,
    adapted: AdaptedModel | None,
    translation: Translation | None,
    shifted: Domain,
    home: Domain,
    translates: bool,
) -> NDArray[np.uint8]:
    rows = np.unique(np.linspace(0, len(shifted) - 1, min(_SHEET_ROWS, len(shifted))).astype(np.int64))
    ours = np.unique(np.linspace(0, len(home) - 1, min(len(rows), len(home))).astype(np.int64))
    images = np.ascontiguousarray(shifted.images[rows])
    made = translate(translation, images, context.check) if translation is not None else images
    before = model.answers(images)
    after = (adapted.model if adapted is not None else model).answers(made)
    drawn = [
        Row(image, other, np.asarray(home.images[ours[place % len(ours)]]), one, two)
        for place, (image, other, one, two) in enumerate(zip(images, made, before, after, strict=True))
    ]
    package = model.package
    return draw_sheet(package.task, package.classes, dict(package.decoding), drawn, translates=translates)


TRAIN = JobHandler(translate_pb2.TrainTranslatorRequest, translate_pb2.TrainTranslatorMetadata, run)
