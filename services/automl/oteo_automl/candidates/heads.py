"""scikit-learn's fitted classifiers as networks: the same answers, exportable."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from oteo_automl.candidates.modules import SavedModule, build, saved

_FLOOR = 1e-3
"""Least probability that a forest gives: where no tree says a class, that is no certainty."""


@saved
class Standardise(SavedModule):
    """Subtracts means and divides by spreads, then cuts off at ten spreads, ``(N, D)``."""

    kind = "standardise"
    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__(features=features)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    @classmethod
    def fit(cls, features: NDArray[np.float32]) -> Standardise:
        """Take means and spreads of ``(N, D)``; a feature that does not vary is only centred."""
        module = cls(features.shape[1])
        spread = features.std(axis=0, dtype=np.float64)
        module.mean.copy_(torch.from_numpy(features.mean(axis=0, dtype=np.float64)))
        module.scale.copy_(torch.from_numpy(np.where(spread > 1e-6, spread, 1.0)))
        return module.eval()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, D)``."""
        return ((features - self.mean) / self.scale).clamp(-10.0, 10.0)

    def apply_numpy(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Do the same to an array."""
        with torch.no_grad():
            result: NDArray[np.float32] = self(torch.from_numpy(np.ascontiguousarray(features))).numpy()
        return result


@saved
class LinearHead(SavedModule):
    """Logits ``x W + b``."""

    kind = "linear"

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(features=features, classes=classes)
        self.linear = nn.Linear(features, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``."""
        logits: torch.Tensor = self.linear(features)
        return logits

    @classmethod
    def from_sklearn(cls, model: Any) -> LinearHead:
        """Take over a fitted ``LogisticRegression``: the softmax of the logits is its ``predict_proba``."""
        weight, bias = _both_classes(np.asarray(model.coef_), np.asarray(model.intercept_))
        head = cls(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            head.linear.weight.copy_(torch.from_numpy(weight))
            head.linear.bias.copy_(torch.from_numpy(bias))
        return head.eval()


@saved
class KernelHead(SavedModule):
    """Decision values of support-vector machines with a Gaussian kernel, one machine against the rest for each class."""

    kind = "kernel"
    vectors: torch.Tensor
    weights: torch.Tensor
    bias: torch.Tensor

    def __init__(self, features: int, classes: int, vectors: int, gamma: float, sharpness: float = 2.0) -> None:
        super().__init__(features=features, classes=classes, vectors=vectors, gamma=gamma, sharpness=sharpness)
        self.register_buffer("vectors", torch.zeros(vectors, features))
        self.register_buffer("weights", torch.zeros(classes, vectors))
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``."""
        squares = (features * features).sum(dim=1, keepdim=True) + (self.vectors * self.vectors).sum(dim=1)
        distance = (squares - 2.0 * torch.matmul(features, self.vectors.t())).clamp(min=0.0)
        kernel = torch.exp(-self.settings["gamma"] * distance)
        sharpness: float = self.settings["sharpness"]
        return (torch.matmul(kernel, self.weights.t()) + self.bias) * sharpness

    @classmethod
    def from_sklearn(cls, machines: list[Any], gamma: float) -> KernelHead:
        """Take over fitted ``SVC(kernel="rbf")`` machines: one for two classes (the second positive), else one a class against the rest.

        The logits are their ``decision_function`` times `sharpness`; with two classes, the first class's are zero.
        """
        indices = sorted({int(index) for machine in machines for index in machine.support_})
        place = {index: number for number, index in enumerate(indices)}
        binary = len(machines) == 1
        classes = 2 if binary else len(machines)
        features = machines[0].support_vectors_.shape[1]
        head = cls(features, classes, len(indices), float(gamma))
        for number, machine in enumerate(machines):
            row = 1 if binary else number
            for index, vector, weight in zip(machine.support_, machine.support_vectors_, machine.dual_coef_[0], strict=True):
                head.vectors[place[int(index)]] = torch.from_numpy(np.asarray(vector, dtype=np.float32))
                head.weights[row, place[int(index)]] = float(weight)
            head.bias[row] = float(machine.intercept_[0])
        return head.eval()


@saved
class ForestHead(SavedModule):
    """A forest of decision trees, walked through by gathering: all trees of all samples go down one level at a time."""

    kind = "forest"
    feature: torch.Tensor
    threshold: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    value: torch.Tensor
    roots: torch.Tensor

    def __init__(self, nodes: int, trees: int, depth: int, classes: int) -> None:
        super().__init__(nodes=nodes, trees=trees, depth=depth, classes=classes)
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(nodes))
        self.register_buffer("left", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("value", torch.zeros(nodes, classes))
        self.register_buffer("roots", torch.zeros(trees, dtype=torch.int64))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``: logarithms of the mean probabilities, none below a thousandth."""
        return torch.log(self.value[_walk(self, features)].mean(dim=1).clamp(min=_FLOOR))

    @classmethod
    def from_sklearn(cls, model: Any) -> ForestHead:
        """Take over a fitted ``ExtraTreesClassifier`` or ``RandomForestClassifier``: the logits are the logarithm of its ``predict_proba``."""
        trees = [estimator.tree_ for estimator in model.estimators_]
        depth = max(max(tree.max_depth for tree in trees), 1)
        head = cls(sum(tree.node_count for tree in trees), len(trees), int(depth), len(model.classes_))
        start = 0
        for number, tree in enumerate(trees):
            _plant(head, number, tree, start)
            counts = tree.value[:, 0, :]
            head.value[start : start + tree.node_count] = torch.from_numpy((counts / counts.sum(axis=1, keepdims=True)).astype(np.float32))
            start += tree.node_count
        return head.eval()


@saved
class BoostedHead(SavedModule):
    """A sum of regression trees for each class, walked through as a forest is."""

    kind = "boosted"
    feature: torch.Tensor
    threshold: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor
    value: torch.Tensor
    roots: torch.Tensor
    bias: torch.Tensor

    def __init__(self, nodes: int, trees: int, depth: int, classes: int) -> None:
        super().__init__(nodes=nodes, trees=trees, depth=depth, classes=classes)
        self.register_buffer("feature", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("threshold", torch.zeros(nodes))
        self.register_buffer("left", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(nodes, dtype=torch.int64))
        self.register_buffer("value", torch.zeros(nodes))
        self.register_buffer("roots", torch.zeros(trees, dtype=torch.int64))
        self.register_buffer("bias", torch.zeros(classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``; with two classes, the first one's are zero."""
        columns = 1 if self.settings["classes"] == 2 else self.settings["classes"]
        rounds = self.settings["trees"] // columns
        # Trees lie class by class.
        sums = self.value[_walk(self, features)].reshape(-1, columns, rounds).sum(dim=2)
        logits = torch.cat([torch.zeros_like(sums), sums], dim=1) if columns == 1 else sums
        return logits + self.bias

    @classmethod
    def from_sklearn(cls, model: Any, sample: NDArray[np.float32]) -> BoostedHead:
        """Take over a fitted ``GradientBoostingClassifier(loss="log_loss")``: the softmax of the logits is its ``predict_proba``.

        `sample` ``(1, D)`` is any one row of features: what the model starts from is its decision there less its trees'.
        """
        columns = model.estimators_.shape[1]
        trees = [model.estimators_[turn, column].tree_ for column in range(columns) for turn in range(len(model.estimators_))]
        depth = max(max(tree.max_depth for tree in trees), 1)
        head = cls(sum(tree.node_count for tree in trees), len(trees), int(depth), len(model.classes_))
        start = 0
        for number, tree in enumerate(trees):
            _plant(head, number, tree, start)
            values = model.learning_rate * tree.value[:, 0, 0]
            head.value[start : start + tree.node_count] = torch.from_numpy(values.astype(np.float32))
            start += tree.node_count
        decision = np.atleast_1d(np.squeeze(model.decision_function(sample), axis=0))
        sums = [sum(model.learning_rate * tree.predict(sample)[0] for tree in model.estimators_[:, column]) for column in range(columns)]
        head.bias[-columns:] = torch.from_numpy((decision - np.asarray(sums)).astype(np.float32))
        return head.eval()


@saved
class NeighboursHead(SavedModule):
    """The classes of the nearest training samples, nearer ones counting more.

    Weighted by how much nearer than the furthest of them each is (Dudani, IEEE Trans. SMC 6, 1976): a neighbour fades out as it is
    overtaken, so that rounding, which may swap two neighbours equally far, changes nothing that can be seen. With equal weights it would.
    """

    kind = "neighbours"
    vectors: torch.Tensor
    members: torch.Tensor

    def __init__(self, features: int, classes: int, vectors: int, neighbours: int) -> None:
        super().__init__(features=features, classes=classes, vectors=vectors, neighbours=neighbours)
        self.register_buffer("vectors", torch.zeros(vectors, features))
        self.register_buffer("members", torch.zeros(vectors, classes))

    def probabilities(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``: shares of the weight."""
        squares = (features * features).sum(dim=1, keepdim=True) + (self.vectors * self.vectors).sum(dim=1)
        distance = torch.sqrt((squares - 2.0 * torch.matmul(features, self.vectors.t())).clamp(min=0.0))
        near, which = torch.topk(distance, self.settings["neighbours"], dim=1, largest=False, sorted=True)
        weight = near[:, -1:] - near + NEAREST * (near[:, -1:] + 1.0)
        return (self.members[which] * weight[:, :, None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``: logarithms of the shares, with a share of one sample spread over all classes."""
        classes, neighbours = self.settings["classes"], self.settings["neighbours"]
        return torch.log((self.probabilities(features) * neighbours + 1.0 / classes) / (neighbours + 1.0))

    @classmethod
    def from_sklearn(cls, model: Any, features: NDArray[np.float32], labels: NDArray[np.int64]) -> NeighboursHead:
        """Take over a fitted ``KNeighborsClassifier(weights=dudani_weights)``: `probabilities` are its ``predict_proba``."""
        classes = len(model.classes_)
        head = cls(features.shape[1], classes, len(features), int(model.n_neighbors))
        head.vectors.copy_(torch.from_numpy(features))
        places = np.searchsorted(model.classes_, labels)
        head.members.copy_(torch.from_numpy(np.eye(classes, dtype=np.float32)[places]))
        return head.eval()


NEAREST = 1e-4
"""Share of the largest distance that is added to every neighbour's weight: were all equally far, each would still count."""


def dudani_weights(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the weights ``(N, k)`` of neighbours at distances ``(N, k)``; see `NeighboursHead`."""
    furthest = distances.max(axis=1, keepdims=True)
    weights: NDArray[np.float64] = furthest - distances + NEAREST * (furthest + 1.0)
    return weights


@saved
class OneAgainstRest(SavedModule):
    """For several labels at once: classifiers of two classes, "not" and "has", one for each label.

    Parameters
    ----------
    parts
        K of them; None where the training samples all had the label, or none had it.
    """

    kind = "one-against-rest"
    constant: torch.Tensor

    def __init__(self, parts: Sequence[Any]) -> None:
        modules = [part if part is None or isinstance(part, SavedModule) else build(part) for part in parts]
        super().__init__(parts=[None if module is None else module.spec() for module in modules])
        self.parts = nn.ModuleList([module for module in modules if module is not None])
        self.register_buffer("constant", torch.zeros(len(modules)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``: the logit of having each label."""
        columns, taken = [], 0
        for index, spec in enumerate(self.settings["parts"]):
            if spec is None:
                columns.append(torch.zeros_like(features[:, :1]) + self.constant[index])
                continue
            logits = self.parts[taken](features)
            columns.append(logits[:, 1:2] - logits[:, 0:1] + self.constant[index])
            taken += 1
        return torch.cat(columns, dim=1)


def _walk(head: Any, features: torch.Tensor) -> torch.Tensor:
    """Give the leaf ``(N, T)`` that each sample reaches in each tree."""
    node: torch.Tensor = head.roots[None, :] + torch.zeros_like(features[:, :1], dtype=torch.int64)
    for _ in range(head.settings["depth"]):
        chosen = torch.gather(features, 1, head.feature[node])
        node = torch.where(chosen <= head.threshold[node], head.left[node], head.right[node])
    return node


def _plant(head: Any, number: int, tree: Any, start: int) -> None:
    """Write a tree's nodes from `start` on."""
    here = slice(start, start + tree.node_count)
    own = np.arange(tree.node_count)
    leaf = tree.children_left < 0
    head.roots[number] = start
    head.feature[here] = torch.from_numpy(np.where(leaf, 0, tree.feature).astype(np.int64))
    head.threshold[here] = torch.from_numpy(_round_down(tree.threshold))
    # A leaf leads to itself, so that shallow trees wait for deep ones.
    head.left[here] = torch.from_numpy((np.where(leaf, own, tree.children_left) + start).astype(np.int64))
    head.right[here] = torch.from_numpy((np.where(leaf, own, tree.children_right) + start).astype(np.int64))


@saved
class PerceptronHead(SavedModule):
    """A perceptron of several layers with rectifiers between them."""

    kind = "perceptron"

    def __init__(self, sizes: list[int]) -> None:
        super().__init__(sizes=list(sizes))
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in itertools.pairwise(sizes)])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Give ``(N, K)``."""
        for number, layer in enumerate(self.layers):
            features = layer(features if number == 0 else torch.relu(features))
        return features

    @classmethod
    def from_sklearn(cls, model: Any) -> PerceptronHead:
        """Take over a fitted ``MLPClassifier(activation="relu")``: the softmax of the logits is its ``predict_proba``."""
        weights = [np.asarray(weight).T for weight in model.coefs_]
        biases = [np.asarray(bias) for bias in model.intercepts_]
        weights[-1], biases[-1] = _both_classes(weights[-1], biases[-1])
        head = cls([weights[0].shape[1], *(weight.shape[0] for weight in weights)])
        with torch.no_grad():
            for layer, weight, bias in zip(head.layers, weights, biases, strict=True):
                if isinstance(layer, nn.Linear):
                    layer.weight.copy_(torch.from_numpy(weight))
                    layer.bias.copy_(torch.from_numpy(bias))
        return head.eval()


def _both_classes(weight: NDArray[Any], bias: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Give two rows where a model of two classes has one, for the second."""
    if weight.shape[0] != 1:
        return weight, bias
    return np.concatenate([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])


def _round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the largest float32 not above each value: a float32 feature then compares as it does with the float64 threshold."""
    near = values.astype(np.float32)
    return np.where(near.astype(np.float64) > values, np.nextafter(near, np.float32(-np.inf)), near).astype(np.float32)
