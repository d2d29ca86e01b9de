"""A graph served to Triton's Python runtime: requests in, batched where they fit together, answers out; the same for every engine."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import triton_python_backend_utils as pb_utils  # type: ignore[import-not-found]  # given by Triton's stub process

from oteo_local.backends.completing import complete_config
from oteo_local.backends.onnx_graphs import first_line


class Graph(Protocol):
    """A graph that an engine has opened.

    Attributes
    ----------
    inputs, outputs
        Names, in the graph's order.
    strings
        Names of the inputs that are texts.
    """

    inputs: list[str]
    outputs: list[str]
    strings: set[str]

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[Any]:
        """Give the outputs of these names; they stay as they are when the graph runs again."""


class ServedGraph:
    """One instance of one model, in a process of its own: the body of every engine's ``TritonPythonModel``."""

    name: str
    batched: bool
    graph: Graph

    def open(self, file: Path, config: dict[str, Any], kind: str) -> Graph:
        """Open the graph.

        Parameters
        ----------
        file
            The ONNX file.
        config
            The model's configuration, JSON values.
        kind
            ``"CPU"`` or ``"GPU"``.

        Raises
        ------
        pb_utils.TritonModelException
            It cannot be opened.
        """
        raise NotImplementedError

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Complete a configuration from the graph; see `complete_config`."""
        return complete_config(config)

    def initialize(self, args: dict[str, str]) -> None:
        """Open the graph.

        Parameters
        ----------
        args : dict
            Triton's: ``model_config`` (JSON), ``model_repository`` (the model's folder), ``model_version``, ``model_name``, ``model_instance_kind``.
        """
        if int(np.__version__.split(".")[0]) >= 2:
            raise pb_utils.TritonModelException(
                f"NumPy {np.__version__} gives wrong outputs under this Triton: the environment needs numpy<2"
            )
        config = json.loads(args["model_config"])
        self.name = args["model_name"]
        self.batched = int(config.get("max_batch_size", 0)) > 0
        file = Path(args["model_repository"]) / args["model_version"] / (config.get("default_model_filename") or "model.onnx")
        self.graph = self.open(file, config, args.get("model_instance_kind", "CPU"))
        inputs, outputs = self.graph.inputs, self.graph.outputs
        unknown = [item["name"] for item in config.get("input", []) if item["name"] not in inputs]
        unknown += [item["name"] for item in config.get("output", []) if item["name"] not in outputs]
        if unknown:
            raise pb_utils.TritonModelException(
                f"model '{self.name}': the configuration names {unknown}; the graph has inputs {inputs} and outputs {outputs}"
            )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests: those that fit together run as one batch, and one that fails takes no other with it.

        Returns
        -------
        list of pb_utils.InferenceResponse
            One a request, in their order.
        """
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[int]] = {}
        feeds: list[dict[str, np.ndarray]] = []
        for index, request in enumerate(requests):
            feed: dict[str, np.ndarray] = {}
            try:
                feed = self._feed(request)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one request is that request's answer
                responses[index] = refused(f"model '{self.name}': {error}")
            feeds.append(feed)
            if responses[index] is None:
                # A key of its own keeps a request alone where the model takes no batches.
                key = (index,) if not self.batched else tuple((name, array.dtype.str, array.shape[1:]) for name, array in feed.items())
                groups.setdefault(key, []).append(index)
        for members in groups.values():
            self._answer(members, requests, feeds, responses)
        return responses

    def finalize(self) -> None:
        """Let go of the graph before the process ends."""
        del self.graph

    def _feed(self, request: Any) -> dict[str, np.ndarray]:
        """Read a request's tensors by name."""
        feed = {}
        for tensor in request.inputs():
            array = tensor.as_numpy()
            if tensor.name() in self.graph.strings:
                array = np.array([item.decode() if isinstance(item, bytes) else item for item in array.ravel()], dtype=object).reshape(
                    array.shape
                )
            feed[tensor.name()] = array
        return feed

    def _answer(self, members: list[int], requests: Sequence[Any], feeds: list[dict[str, np.ndarray]], responses: list[Any]) -> None:
        """Run the requests ``members`` together and fill in their responses."""
        wanted = [requested_outputs(requests[index], self.graph.outputs) for index in members]
        names = [name for name in self.graph.outputs if any(name in some for some in wanted)]
        sizes = [next(iter(feeds[index].values())).shape[0] if self.batched else 1 for index in members]
        try:
            results = self._run(names, [feeds[index] for index in members], sizes)
        except Exception as error:  # noqa: BLE001 - becomes the answer of the request at fault
            if len(members) == 1:
                responses[members[0]] = refused(f"model '{self.name}': {first_line(error)}")
            else:  # one of them is at fault: each alone tells which
                for index in members:
                    self._answer([index], requests, feeds, responses)
            return
        for index, some, arrays in zip(members, wanted, results, strict=True):
            tensors = [pb_utils.Tensor(name, array) for name, array in zip(names, arrays, strict=True) if name in some]
            responses[index] = pb_utils.InferenceResponse(output_tensors=tensors)

    def _run(self, names: list[str], feeds: list[dict[str, np.ndarray]], sizes: list[int]) -> list[list[np.ndarray]]:
        """Run feeds as one batch; the outputs of each feed, in the order of ``names``."""
        if len(feeds) == 1:
            return [[plain(array) for array in self.graph.run(names, feeds[0])]]
        together = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        arrays = [plain(array) for array in self.graph.run(names, together)]
        if any(array.ndim == 0 or array.shape[0] != sum(sizes) for array in arrays):
            raise ValueError(f"an output of shape {[array.shape for array in arrays]} has no batch axis of {sum(sizes)}")
        cuts = np.cumsum(sizes)[:-1]
        return [list(parts) for parts in zip(*(np.split(array, cuts) for array in arrays), strict=True)]


def requested_outputs(request: Any, outputs: Iterable[str]) -> set[str]:
    """Give the names of the outputs that a request asks for; none named means all."""
    return set(request.requested_output_names()) or set(outputs)


def plain(array: Any) -> np.ndarray:
    """Give an output as Triton carries it: contiguous, strings as bytes."""
    array = np.asarray(array)
    if array.dtype.kind in "OU":
        return np.array([str(item).encode() for item in array.ravel()], dtype=object).reshape(array.shape)
    return np.ascontiguousarray(array)


def refused(message: str) -> Any:
    """Answer one request with an error."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(message, pb_utils.TritonError.INVALID_ARG))
