"""The last gate before publishing: a real Triton must answer as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from oteo_core.errors import DeadlineExceeded, FailedPrecondition
from oteo_core.graphs.outputs import Output, compare_outputs

PREFIX = "oteo-parity-"
SINGLES = 4
BATCH = 16

_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 2.0


class TritonAway(Exception):
    """Triton cannot be reached just now."""


class ParityClient(Protocol):
    """What the check needs of a Triton server; raises `TritonAway` where it cannot be reached."""

    def load(self, name: str, config: str, files: Mapping[str, bytes]) -> None:
        """Load a model from the text of its ``config.pbtxt`` and its files (by path below the model's folder).

        Raises
        ------
        ValueError
            Triton refuses the model.
        """

    def infer(self, name: str, images: NDArray[Any], outputs: Sequence[str]) -> Sequence[NDArray[Any]]:
        """Give these outputs, ``(N, ...)`` each, of images ``(N, H, W, C)``, one request.

        Raises
        ------
        ValueError
            Triton answers with an error.
        """

    def unload(self, name: str) -> None:
        """Unload a model; no error where there is none."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of the check: the largest difference of the first output, and on how many images."""

    error: float
    count: int


def parity_name(operation_id: str) -> str:
    """Give the name under which a candidate package is served for its check; the gateway leaves such names alone."""
    return f"{PREFIX}{operation_id}"


def check_parity(
    client: ParityClient,
    name: str,
    config: str,
    files: Mapping[str, bytes],
    images: NDArray[Any],
    outputs: Sequence[Output],
    expected: Sequence[NDArray[Any]],
    *,
    remaining: Callable[[], float],
    sleep: Callable[[float], None],
    batch: int = BATCH,
) -> Parity:
    """Serve a package on Triton and compare its answers.

    Parameters
    ----------
    client
        The server.
    name
        `parity_name` of the operation.
    config
        ``config.pbtxt``; its name is not used.
    files
        Files by path below the model's folder: ``1/model.onnx`` and the labels.
    images
        Held-out prepared images ``(N, H, W, C)``, N >= 1. The first `SINGLES` are sent alone, all of them in batches of `batch`.
    outputs
        What the graph gives.
    expected
        PyTorch's answers, ``(N, ...)`` for each output.
    remaining
        Seconds that are left for this step.
    sleep
        Waits between attempts; raises to end the wait (cancelled job).
    batch
        Images in a request, no more than the configuration allows.

    Raises
    ------
    FailedPrecondition
        ``PARITY_FAILED``: Triton refuses the model, or its answers differ.
    DeadlineExceeded
        ``TRITON_UNAVAILABLE``: no Triton could be reached before the time was up. Not `Unavailable`, which would have the job started
        again, with no time left.
    """
    pause = _FIRST_PAUSE
    while True:
        try:
            try:
                # A killed attempt may have left its own, with other files under the same name.
                client.unload(name)
                client.load(name, config, files)
                error, complaint = _compare(client, name, images, outputs, expected, batch)
            finally:
                _unload_quietly(client, name)
        except TritonAway as away:
            if remaining() <= pause:
                raise DeadlineExceeded(
                    f"no Triton to check the model on before the time was up: {away}; nothing is published", reason="TRITON_UNAVAILABLE"
                ) from away
            sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            continue
        except ValueError as refusal:
            raise FailedPrecondition(f"Triton does not serve the exported model: {refusal}", reason="PARITY_FAILED") from refusal
        if complaint:
            raise FailedPrecondition(
                f"Triton does not answer as PyTorch does: {complaint}; nothing is published",
                reason="PARITY_FAILED",
                metadata={"error": f"{error:.6g}"},
            )
        return Parity(error, len(images))


def _compare(
    client: ParityClient, name: str, images: NDArray[Any], outputs: Sequence[Output], expected: Sequence[NDArray[Any]], batch: int
) -> tuple[float, str]:
    largest = 0.0
    names = [output.name for output in outputs]
    pieces = [slice(index, index + 1) for index in range(min(SINGLES, len(images)))]
    pieces += [slice(start, start + batch) for start in range(0, len(images), batch)]
    for piece in pieces:
        error, complaint = compare_outputs(outputs, client.infer(name, images[piece], names), [one[piece] for one in expected])
        largest = max(largest, error)
        if complaint:
            return largest, complaint
    return largest, ""


def _unload_quietly(client: ParityClient, name: str) -> None:
    try:
        client.unload(name)
    except TritonAway:
        # What is away serves nothing; with explicit model control it comes back without this model.
        return
