"""Run this model on images: ``python predict.py IMAGE [IMAGE ...]`` prints an answer for each, a JSON object a line.

Needs numpy and OpenCV, and onnxruntime where the model is ``model.onnx``, PyTorch where it is another form. `read` and `prepare` are the
preprocessing that the model was trained with, to the bit: use them, or the same steps in another language. Everything after that
(normalisation, calibration) is inside the model.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Array = Any


def read(path: str | Path) -> Array:
    """Give an image file's pixels, (H, W, C), uint8, uint16 or float32, colours as RGB or RGBA; the camera's orientation is applied to a JPEG."""
    data = np.frombuffer(Path(path).read_bytes(), np.uint8)
    # "Unchanged" keeps transparency and depth, and ignores the orientation that cameras write.
    jpeg = data[:2].tobytes() == b"\xff\xd8"
    pixels = cv2.imdecode(data, cv2.IMREAD_ANYCOLOR if jpeg else cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise ValueError(f"{path} is not an image that OpenCV reads")
    if pixels.ndim == 2:
        return pixels[:, :, None]
    order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(pixels, order)


def prepare(pixels: Array, policy: dict[str, Any]) -> Array:
    """Bring pixels (H, W, C) to the model's input (height, width, channels): value range, channels, size, type, in this order."""
    white = _white(pixels, policy["bit_depth"])
    pixels = _channels(pixels, policy["channels"], white)
    height, width = pixels.shape[:2]
    if policy["resize"] == "stretch":
        pixels = _resize(pixels, policy["width"], policy["height"], policy["interpolation"])
    else:
        left, top, inner_width, inner_height = place(width, height, policy)
        canvas = np.zeros((policy["height"], policy["width"], pixels.shape[2]), pixels.dtype)
        inner = _resize(pixels, inner_width, inner_height, policy["interpolation"])
        canvas[top : top + inner_height, left : left + inner_width] = inner
        pixels = canvas
    return np.ascontiguousarray(_typed(pixels, policy["dtype"], white))


def place(width: int, height: int, policy: dict[str, Any]) -> tuple[int, int, int, int]:
    """Say where an original of this size lies in the prepared image: left, top, width and height, pixels."""
    if policy["resize"] == "stretch":
        return 0, 0, policy["width"], policy["height"]
    scale = min(policy["width"] / width, policy["height"] / height)
    inner_width = min(policy["width"], max(1, round(width * scale)))
    inner_height = min(policy["height"], max(1, round(height * scale)))
    return (policy["width"] - inner_width) // 2, (policy["height"] - inner_height) // 2, inner_width, inner_height


def _white(pixels: Array, bit_depth: int) -> float:
    """Give the value that stands for white: 255, 1 for floats, for 16-bit files the largest of the bits that are used."""
    if pixels.dtype == np.uint8:
        return 255.0
    if pixels.dtype != np.uint16:
        return 1.0
    highest = int(pixels.max(initial=0))
    bits = bit_depth or next(bits for bits in (8, 10, 12, 14, 16) if highest < 1 << bits)
    return float((1 << bits) - 1)


def _channels(pixels: Array, wanted: int, white: float) -> Array:
    if pixels.shape[2] == wanted:
        return pixels
    if pixels.shape[2] in (2, 4):
        # What is transparent lies on black.
        colour, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
        if (alpha >= white).all():
            pixels = np.ascontiguousarray(colour)
        else:
            laid = colour.astype(np.float32) * np.minimum(alpha.astype(np.float32) / white, 1.0)
            pixels = laid if pixels.dtype == np.float32 else np.rint(laid).astype(pixels.dtype)
    if pixels.shape[2] == wanted:
        return pixels
    if (pixels.shape[2], wanted) == (1, 3):
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    if (pixels.shape[2], wanted) == (3, 1):
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None]
    raise ValueError(f"the image has {pixels.shape[2]} channels, the model takes {wanted}")


def _resize(pixels: Array, width: int, height: int, interpolation: str) -> Array:
    if interpolation == "linear":
        return _scaled(pixels, width, height, cv2.INTER_LINEAR)
    # Averaging where a side shrinks, linear where it grows.
    shrunk = _scaled(pixels, min(width, pixels.shape[1]), min(height, pixels.shape[0]), cv2.INTER_AREA)
    return _scaled(shrunk, width, height, cv2.INTER_LINEAR)


def _scaled(pixels: Array, width: int, height: int, mode: int) -> Array:
    if pixels.shape[:2] == (height, width):
        return pixels
    resized = cv2.resize(pixels, (width, height), interpolation=mode)
    return resized[:, :, None] if resized.ndim == 2 else resized


def _typed(pixels: Array, dtype: str, white: float) -> Array:
    if pixels.dtype.name == dtype:
        return pixels
    if dtype == "float32":
        share = pixels.astype(np.float32) / np.float32(white)
        return np.minimum(share, np.float32(1.0)) if pixels.dtype == np.uint16 else share
    if pixels.dtype == np.uint16:
        whole = int(white)
        return ((np.minimum(pixels, whole).astype(np.uint32) * 255 + whole // 2) // whole).astype(np.uint8)
    return np.rint(np.clip(np.nan_to_num(pixels), 0.0, 1.0) * 255.0).astype(np.uint8)


class Model:
    """The model of a folder.

    Parameters
    ----------
    folder
        Where ``model.json`` and the model's file lie.
    """

    def __init__(self, folder: str | Path = Path(__file__).parent) -> None:
        self.folder = Path(folder)
        self.facts = json.loads((self.folder / "model.json").read_text(encoding="utf-8"))
        self.policy = self.facts["input"]
        self._run = self._open()

    def _open(self) -> Any:
        names = self.facts["outputs"]
        if (self.folder / "model.onnx").exists():
            onnxruntime = importlib.import_module("onnxruntime")
            session = onnxruntime.InferenceSession(str(self.folder / "model.onnx"), providers=onnxruntime.get_available_providers())
            return lambda batch: session.run(names, {"image": batch})
        torch = importlib.import_module("torch")
        if (self.folder / "model.torchscript.pt").exists():
            module = torch.jit.load(str(self.folder / "model.torchscript.pt"), map_location="cpu").eval()
        else:
            sys.path.insert(0, str(self.folder))
            module = importlib.import_module("load").load(self.folder)

        def run(batch: Array) -> list[Array]:
            with torch.inference_mode():
                return [value.numpy() for value in module(torch.from_numpy(batch))]

        return run

    def outputs(self, batch: Array) -> dict[str, Array]:
        """Run prepared images (N, height, width, channels); give the model's outputs by name."""
        # A checkpoint's module gives no attention, which stands last.
        return dict(zip(self.facts["outputs"], self._run(np.ascontiguousarray(batch)), strict=False))

    def answer(self, pixels: Array) -> dict[str, Any]:
        """Answer for one image's pixels (H, W, C).

        Classification: ``probabilities`` by class and the ``prediction_set`` that holds the true class with the stated ``coverage``;
        where several classes may be present, ``present`` are those above their thresholds. Detection: ``objects`` with ``box`` (left,
        top, right, bottom) in the image's own pixels. Semantic segmentation: ``labels`` (H, W), 0 background, k + 1 class k, before the
        post-processing named under ``decoding`` in ``model.json``. Instances: the raw ``outputs``.
        """
        found = {name: value[0] for name, value in self.outputs(prepare(pixels, self.policy)[None]).items()}
        classes, task, size = self.facts["classes"], self.facts["task"], pixels.shape[:2]
        if task in ("classification", "multi_label_classification"):
            scores = dict(zip(classes, map(float, found["probabilities"]), strict=True))
            answer: dict[str, Any] = {"probabilities": scores}
            conformal = self.facts["conformal"]
            if task == "multi_label_classification":
                limits = np.atleast_1d(self.facts["decoding"].get("score_threshold", 0.5))
                answer["present"] = [
                    name for index, name in enumerate(classes) if scores[name] >= float(limits[min(index, len(limits) - 1)])
                ]
            elif conformal:
                ranked = sorted(scores, key=lambda name: -scores[name])
                limit = 1.0 - conformal["quantile"]
                answer["prediction_set"] = [name for rank, name in enumerate(ranked) if rank == 0 or scores[name] >= limit]
                answer["coverage"] = conformal["coverage"]
            return answer
        left, top, width, height = place(size[1], size[0], self.policy)
        if task == "detection":
            return {"objects": self._objects(found, size, (left, top, width, height))}
        if task == "semantic_segmentation":
            # Probabilities are enlarged before the likeliest class is taken: an outline enlarged by nearest pixel has steps.
            inner = found["probabilities"][:, top : top + height, left : left + width]
            maps = [cv2.resize(np.ascontiguousarray(one), (size[1], size[0]), interpolation=cv2.INTER_LINEAR) for one in inner]
            return {"labels": np.argmax(maps, axis=0).astype(np.uint8)}
        return {"outputs": found}

    def _objects(self, found: dict[str, Array], size: tuple[int, ...], at: tuple[int, int, int, int]) -> list[dict[str, Any]]:
        """Bring boxes to the image's own pixels, drop those that a likelier one of their class overlaps, and keep those above the threshold."""
        left, top, width, height = at
        scale = np.array([width / size[1], height / size[0]] * 2)
        boxes = np.clip((found["boxes"] - [left, top, left, top]) / scale, 0, [size[1], size[0]] * 2)
        decoding, classes = self.facts["decoding"], self.facts["classes"]
        limits, overlap = np.atleast_1d(decoding.get("score_threshold", 0.5)), float(decoding.get("nms_iou") or 0)
        kept: list[int] = []
        for index in np.argsort(-found["scores"], kind="stable"):
            label, box = int(found["classes"][index]), boxes[index]
            if found["scores"][index] < max(float(limits[min(label, len(limits) - 1)]), 1e-9) or (box[2:] <= box[:2]).any():
                continue
            if overlap and any(int(found["classes"][k]) == label and _overlap(boxes[k], box) > overlap for k in kept):
                continue
            kept.append(int(index))
        return [
            {
                "class": classes[int(found["classes"][index])],
                "score": float(found["scores"][index]),
                "box": [round(float(edge), 2) for edge in boxes[index]],
            }
            for index in kept
        ]


def _overlap(one: Array, other: Array) -> float:
    """Give the intersection over union of two boxes."""
    sides = np.clip(np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2]), 0, None)
    common = float(sides.prod())
    return common / (float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - common)


def _printable(answer: dict[str, Any], classes: list[str]) -> dict[str, Any]:
    if "labels" in answer:
        return {"pixels": {name: int((answer["labels"] == index + 1).sum()) for index, name in enumerate(classes)}}
    if "outputs" in answer:
        return {"outputs": {name: list(value.shape) for name, value in answer["outputs"].items()}}
    return answer


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python predict.py IMAGE [IMAGE ...]")
    model = Model()
    for given in sys.argv[1:]:
        said = _printable(model.answer(read(given)), model.facts["classes"])
        print(json.dumps({"image": given, **said}, ensure_ascii=False))
