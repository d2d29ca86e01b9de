"""Predictions in Pascal VOC's folders, in one ZIP file.

``Annotations/{sample}.xml`` holds an image's objects with their ``confidence`` (detection, instances); ``SegmentationClass/{sample}.png`` a
class number for each pixel, and ``SegmentationObject/{sample}.png`` an object number (16 bit where there are more than 255), the objects in the
order of the XML file; ``classes.txt`` the classes, a line each. Classification is written as the challenge asks for results:
``Main/cls_{class}.txt`` with ``sample confidence`` lines (Everingham et al., "The Pascal visual object classes challenge", IJCV 88, 2010;
development kit of VOC2012). Boxes are VOC's: pixels counted from 1, with fractions where the model gives them, both ends inside.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np
from defusedxml import ElementTree as SafeTree

from oteo_automl.predictions.records import CLASSES, ImageRecord, PredictionSet, number_classes, unreadable
from oteo_automl.predictions.table import in_order
from oteo_core.errors import OteoError
from oteo_core.images import ImageLimits, decode_labels, encode_png
from oteo_core.packages.answers import ClassMap, Detections, Instances

_CLASSES = "classes.txt"
_MOST_BYTES = 2_000_000_000
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_voc(predictions: PredictionSet) -> bytes:
    """Write a prediction set as a ZIP file; equal predictions give equal bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        _put(archive, _CLASSES, "".join(f"{name}\n" for name in predictions.classes).encode())
        if predictions.task in CLASSES:
            for index, name in enumerate(predictions.classes):
                rows = zip(predictions.images, predictions.answers, strict=True)
                text = "".join(f"{image.sample} {float(values[index])!r}\n" for image, values in rows)
                _put(archive, f"Main/cls_{index + 1:03d}_{_plain(name)}.txt", text.encode())
            return _closed(archive, buffer)
        for image, answer in zip(predictions.images, predictions.answers, strict=True):
            _put(archive, f"Annotations/{image.sample}.xml", _xml(image, answer, predictions))
            if isinstance(answer, ClassMap):
                _put(archive, f"SegmentationClass/{image.sample}.png", encode_png(answer.labels[:, :, None]))
            elif isinstance(answer, Instances):
                dtype = np.uint8 if len(answer.labels) < 256 else np.uint16
                _put(archive, f"SegmentationObject/{image.sample}.png", encode_png(answer.ids.astype(dtype)[:, :, None]))
    return buffer.getvalue()


def _closed(archive: zipfile.ZipFile, buffer: io.BytesIO) -> bytes:
    archive.close()
    return buffer.getvalue()


def _plain(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)


def _put(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


def _xml(image: ImageRecord, answer: Any, predictions: PredictionSet) -> bytes:
    root = ElementTree.Element("annotation")
    _text(root, "folder", predictions.task)
    _text(root, "filename", image.source_path or image.sample)
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", image.width), ("height", image.height)):
        _text(size, name, str(value))
    _text(root, "segmented", str(int(not isinstance(answer, Detections))))
    for label, confidence, box in _objects(answer):
        item = ElementTree.SubElement(root, "object")
        _text(item, "name", predictions.classes[label])
        _text(item, "confidence", repr(confidence))
        edges = ElementTree.SubElement(item, "bndbox")
        for name, edge in zip(("xmin", "ymin", "xmax", "ymax"), (box[0] + 1, box[1] + 1, box[2], box[3]), strict=True):
            _text(edges, name, repr(round(edge, 4)))
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8"))


def _text(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, name).text = text


def _objects(answer: Any) -> list[tuple[int, float, list[float]]]:
    if isinstance(answer, Detections):
        rows = zip(answer.labels, answer.scores, answer.boxes, strict=True)
        return [(int(label), float(score), [float(edge) for edge in box]) for label, score, box in rows]
    if isinstance(answer, Instances):
        found = []
        for number, (label, score) in enumerate(zip(answer.labels, answer.scores, strict=True), start=1):
            inside = answer.ids == number
            down, across = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            box = [float(across[0]), float(down[0]), float(across[-1] + 1), float(down[-1] + 1)] if len(down) else [0.0] * 4
            found.append((int(label), float(score), box))
        return found
    return []


def read_voc(data: bytes, *, what: str = "the file", classes: Sequence[str] | None = None) -> PredictionSet:
    """Read a ZIP file of `write_voc`, or VOC XML files with ``confidence`` from elsewhere, zipped.

    Parameters
    ----------
    data
        The ZIP file.
    what
        Its name, for errors.
    classes
        The classes and their order; None: those of ``classes.txt``, else in the order of their names.

    Raises
    ------
    InvalidArgument
        ``UNREADABLE_PREDICTIONS``.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MOST_BYTES:
                raise unreadable(what, "it unpacks to more than 2 GB")
            files = {entry.filename: archive.read(entry) for entry in archive.infolist() if not entry.is_dir()}
        listed = next((text.decode() for name, text in files.items() if name.rsplit("/", 1)[-1] == _CLASSES), None)
        lines = [line for line in listed.split("\n") if line] if listed is not None else None
        results = sorted(name for name in files if name.rsplit("/", 1)[-1].startswith("cls_"))
        if results:
            return _read_classes(files, results, lines, what, classes)
        return _read_objects(files, lines, what, classes)
    except (zipfile.BadZipFile, UnicodeDecodeError, SafeTree.ParseError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, OteoError):
            raise
        raise unreadable(what, repr(error)) from error


def _read_classes(
    files: dict[str, bytes], results: list[str], lines: list[str] | None, what: str, classes: Sequence[str] | None
) -> PredictionSet:
    names = lines if lines is not None else [name.rsplit("/", 1)[-1].removeprefix("cls_").removesuffix(".txt") for name in results]
    numbers = number_classes(names, classes, what)
    values: dict[str, Any] = {}
    for name, file in zip(names, results, strict=True):
        for line in files[file].decode().splitlines():
            sample, score = line.rsplit(" ", 1)
            values.setdefault(sample, np.zeros(len(numbers)))[numbers[name]] = float(score)
    several = any(abs(one.sum() - 1) > 1e-3 for one in values.values())
    return PredictionSet(CLASSES[several], tuple(numbers), [ImageRecord(sample) for sample in values], list(values.values()))


def _read_objects(files: dict[str, bytes], lines: list[str] | None, what: str, classes: Sequence[str] | None) -> PredictionSet:
    trees = {name: SafeTree.fromstring(content) for name, content in sorted(files.items()) if name.endswith(".xml")}
    if not trees:
        raise unreadable(what, "it holds no XML file")
    found = sorted({item.findtext("name") or "" for tree in trees.values() for item in tree.iter("object")})
    numbers = number_classes(lines if lines is not None else found, classes, what)
    images: list[ImageRecord] = []
    answers: list[Any] = []
    tasks: set[str] = set()
    for name, tree in trees.items():
        sample = name.rsplit("/", 1)[-1].removesuffix(".xml")
        size = [int(float(tree.findtext(f"size/{side}") or 0)) for side in ("width", "height")]
        images.append(ImageRecord(sample, tree.findtext("filename") or "", size[0], size[1]))
        prefix = name.rsplit("Annotations/", 1)[0] if "Annotations/" in name else ""
        objects = list(tree.iter("object"))
        labels = np.array([numbers[item.findtext("name") or ""] for item in objects], dtype=np.int64)
        scores = np.array([float(item.findtext("confidence") or 1.0) for item in objects], dtype=np.float32)
        by_class, by_object = (files.get(f"{prefix}Segmentation{kind}/{sample}.png") for kind in ("Class", "Object"))
        if by_class is not None:
            tasks.add("semantic_segmentation")
            answers.append(ClassMap(_plane(by_class).astype(np.uint8)))
        elif by_object is not None:
            tasks.add("instance_segmentation")
            answers.append(Instances(_plane(by_object).astype(np.int32), labels, scores))
        else:
            tasks.add("detection")
            answers.append(in_order(_boxes(objects), scores, labels))
    if len(tasks) > 1:
        raise unreadable(what, "some images have masks and others have none")
    return PredictionSet(tasks.pop(), tuple(numbers), images, answers)


def _plane(data: bytes) -> Any:
    numbers = decode_labels(data, ImageLimits())
    return numbers[:, :, 0] if numbers.ndim == 3 else numbers


def _boxes(objects: Sequence[Any]) -> Any:
    edges = [[float(item.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")] for item in objects]
    boxes = np.array(edges, dtype=np.float64).reshape(-1, 4)
    boxes[:, :2] -= 1
    return boxes.astype(np.float32)
