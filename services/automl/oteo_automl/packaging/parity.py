"""The last gate before publishing: a real Triton must answer as PyTorch does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from oteo_core.errors import DeadlineExceeded, FailedPrecondition

TOLERANCE = 1e-4
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

    def infer(self, name: str, images: NDArray[Any]) -> NDArray[np.float32]:
        """Give ``probabilities`` ``(N, K)`` of images ``(N, H, W, C)``, one request.

        Raises
        ------
        ValueError
            Triton answers with an error.
        """

    def unload(self, name: str) -> None:
        """Unload a model; no error where there is none."""


@dataclass(frozen=True, slots=True)
class Parity:
    """Result of the check: the largest difference of a probability, and on how many images."""

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
    expected: NDArray[np.float32],
    *,
    remaining: Callable[[], float],
    sleep: Callable[[float], None],
    tolerance: float = TOLERANCE,
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
        Held-out prepared images ``(N, H, W, C)``, N >= 1. The first `SINGLES` are sent alone, all of them in batches of `BATCH`.
    expected
        PyTorch's probabilities ``(N, K)``.
    remaining
        Seconds that are left for this step.
    sleep
        Waits between attempts; raises to end the wait (cancelled job).
    tolerance
        Largest difference allowed.

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
                error = _largest_difference(client, name, images, expected)
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
        if not error <= tolerance:
            raise FailedPrecondition(
                f"Triton's probabilities differ by {error:.3g} from PyTorch's, more than {tolerance:g}; nothing is published",
                reason="PARITY_FAILED",
                metadata={"error": f"{error:.6g}", "tolerance": f"{tolerance:g}"},
            )
        return Parity(error, len(images))


def _largest_difference(client: ParityClient, name: str, images: NDArray[Any], expected: NDArray[np.float32]) -> float:
    largest = 0.0
    pieces = [slice(index, index + 1) for index in range(min(SINGLES, len(images)))]
    pieces += [slice(start, start + BATCH) for start in range(0, len(images), BATCH)]
    for piece in pieces:
        answer = client.infer(name, images[piece])
        wanted = expected[piece]
        if answer.shape != wanted.shape:
            raise ValueError(f"it answers with shape {answer.shape} where {wanted.shape} is due")
        if not np.isfinite(answer).all():
            raise ValueError("it answers with numbers that are not finite")
        largest = max(largest, float(np.abs(answer - wanted).max()))
    return largest


def _unload_quietly(client: ParityClient, name: str) -> None:
    try:
        client.unload(name)
    except TritonAway:
        # What is away serves nothing; with explicit model control it comes back without this model.
        return
