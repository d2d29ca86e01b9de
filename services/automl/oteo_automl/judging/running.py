"""A package's graph over a dataset's images, so that a killed run goes on where it was."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from oteo_automl.judging.judges import Judge
from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets import DatasetReader, Sample
from oteo_core.errors import Internal, OteoError
from oteo_core.graphs.export import session
from oteo_core.images import ImageLimits, decode, prepare
from oteo_core.packages import ModelPackage

CHUNK = 256
"""Images whose answers are kept together, as one checkpoint."""

BATCH = 16

UNUSUAL = 0.01
"""Share of the training images that lie farther out than an image which is called unusual."""


class Keeper(Protocol):
    """Where checkpoints go: `oteo_core.jobs.JobContext`."""

    def check(self) -> None:
        """Raise if the job is to stop."""

    def save(self, name: str, data: bytes) -> None:
        """Keep a checkpoint."""

    def load(self, name: str) -> bytes | None:
        """Give a checkpoint."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """An image that could not be judged, and why."""

    sample: str
    path: str
    reason: str
    message: str


@dataclass(slots=True)
class Answered:
    """What the model said.

    Parameters
    ----------
    samples
        The images that could be read, in their order.
    answers
        One for each.
    skipped
        The others.
    unusual
        Images that lie farther from the training images than 99 of 100 of those do; None where the package does not say what those were like.
    """

    samples: list[Sample]
    answers: Answers
    skipped: list[Skipped]
    unusual: int | None


def read_graph(store: ArtifactStore, package: ModelPackage) -> bytes:
    """Read a package's graph."""
    return store.read_bytes(f"{package.name}/{package.triton_path}/1/model.onnx")


class Answers(Sequence[Any]):
    """Answers of all images that could be read, a chunk in memory at a time.

    Parameters
    ----------
    judge
        Unpacks them.
    load
        Gives a chunk's arrays by its number.
    counts
        Answers of each chunk.
    """

    def __init__(self, judge: Judge, load: Callable[[int], dict[str, NDArray[Any]]], counts: Sequence[int]) -> None:
        self._judge, self._load = judge, load
        self._ends = np.cumsum([0, *counts])
        self._open: tuple[int, list[Any]] = (-1, [])

    def __len__(self) -> int:
        """Give their number."""
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        """Give one answer, or several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        chunk = int(np.searchsorted(self._ends, index, side="right")) - 1
        if self._open[0] != chunk:
            self._open = (chunk, self._judge.unpack(self._load(chunk)))
        return self._open[1][index - int(self._ends[chunk])]


class Truths(Sequence[Any]):
    """What is true of images, read one after another."""

    def __init__(self, judge: Judge, reader: DatasetReader, samples: Sequence[Sample], check: Callable[[], None]) -> None:
        self._judge, self._reader, self._samples, self._check = judge, reader, samples, check

    def __len__(self) -> int:
        """Give their number."""
        return len(self._samples)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...

    def __getitem__(self, index: int | slice) -> Any:
        """Give one truth, or several."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        self._check()
        return self._judge.truth(self._reader, self._samples[index])


def answer_all(
    keeper: Keeper,
    judge: Judge,
    graph: bytes,
    reader: DatasetReader,
    samples: Sequence[Sample],
    limits: ImageLimits,
    progress: Callable[[float], None],
) -> Answered:
    """Have the model answer for every image.

    Parameters
    ----------
    keeper
        Keeps the answers of each chunk; a later attempt takes them from there.
    judge
        Of the package.
    graph
        ONNX.
    reader, samples
        The images.
    limits
        Of decoding.
    progress
        Told the share that is done.

    Raises
    ------
    Internal
        ``BAD_MODEL_OUTPUT``: the graph lacks an output.
    """
    key = hashlib.sha256(f"{judge.package.digest}\0{reader.info.digest}\0{[s.id for s in samples]}".encode()).hexdigest()[:12]
    runtime: Any = None
    read: list[Sample] = []
    skipped: list[Skipped] = []
    counts: list[int] = []
    unusual = 0
    with ThreadPoolExecutor(max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="decode") as pool:
        for number, start in enumerate(range(0, len(samples), CHUNK)):
            keeper.check()
            chunk = samples[start : start + CHUNK]
            name = f"answers/{key}-{number:05d}"
            kept = keeper.load(f"{name}.json")
            if kept is None:
                runtime = runtime or session(graph)
                answers, missing, far = _answer_chunk(keeper.check, judge, runtime, reader, chunk, limits, pool)
                keeper.save(f"{name}.npz", _to_npz(judge.pack(answers)))
                listed = [[one.sample, one.path, one.reason, one.message] for one in missing]
                keeper.save(f"{name}.json", json.dumps({"skipped": listed, "unusual": far}).encode())
            else:
                stored = json.loads(kept)
                missing, far = [Skipped(*entry) for entry in stored["skipped"]], int(stored["unusual"])
            unusual += far
            lost = {one.sample for one in missing}
            read += [sample for sample in chunk if sample.id not in lost]
            skipped += missing
            counts.append(len(chunk) - len(missing))
            progress((start + len(chunk)) / len(samples))

    def load(number: int) -> dict[str, NDArray[Any]]:
        keeper.check()
        data = keeper.load(f"answers/{key}-{number:05d}.npz")
        if data is None:
            raise Internal("a checkpoint of this evaluation is gone", reason="CHECKPOINT_LOST")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}

    return Answered(read, Answers(judge, load, counts), skipped, unusual if judge.package.reference is not None else None)


def _to_npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _answer_chunk(
    check: Callable[[], None],
    judge: Judge,
    runtime: Any,
    reader: DatasetReader,
    samples: Sequence[Sample],
    limits: ImageLimits,
    pool: ThreadPoolExecutor,
) -> tuple[list[Any], list[Skipped], int]:
    package = judge.package
    names = [output.name for output in runtime.get_outputs()]
    answers: list[Any] = []
    skipped: list[Skipped] = []
    unusual = 0

    def prepared(sample: Sample) -> tuple[NDArray[Any], tuple[int, int], bool] | Skipped:
        try:
            image = decode(reader.read_media(sample), limits)
            if sample.mask_path:
                # A mask that cannot be read is no truth: better known now than when all answers are there.
                judge.truth(reader, sample)
        except OteoError as error:
            return Skipped(sample.id, sample.source_path or sample.path, error.reason, error.message)
        height, width = image.pixels.shape[:2]
        pixels = prepare(image.pixels, package.input, image.header.bit_depth)
        return pixels, (width, height), package.reference is not None and package.reference.score(pixels)[1] < UNUSUAL

    for group in _batches(samples):
        check()
        made = list(pool.map(prepared, group))
        skipped += [one for one in made if isinstance(one, Skipped)]
        ready = [one for one in made if not isinstance(one, Skipped)]
        if not ready:
            continue
        unusual += sum(far for _, _, far in ready)
        outputs = runtime.run(None, {"image": np.stack([pixels for pixels, _, _ in ready])})
        try:
            answers += judge.answers(dict(zip(names, outputs, strict=True)), [size for _, size, _ in ready])
        except KeyError as error:
            raise Internal(f"the graph of {package.name} has no output {error}", reason="BAD_MODEL_OUTPUT") from error
    return answers, skipped, unusual


def _batches(samples: Sequence[Sample]) -> Iterator[Sequence[Sample]]:
    for start in range(0, len(samples), BATCH):
        yield samples[start : start + BATCH]
