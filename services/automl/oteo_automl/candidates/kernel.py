"""Logistic regression on radial basis functions: a support vector machine's shape with honest probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel


class KernelLogisticRegression(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Kernel logistic regression (Zhu and Hastie, 2005) on at most ``landmarks`` of the training cases.

    Parameters
    ----------
    C
        Inverse strength of the penalty.
    gamma_scale
        Factor on the kernel's usual width, 1 over the number of features for standardised ones.
    landmarks
        Most cases that serve as centres; all where there are fewer.
    seed
        Seed of their draw.
    """

    def __init__(self, C: float = 1.0, gamma_scale: float = 1.0, landmarks: int = 400, seed: int = 0) -> None:
        self.C = C
        self.gamma_scale = gamma_scale
        self.landmarks = landmarks
        self.seed = seed

    def fit(self, values: NDArray[Any], labels: NDArray[Any]) -> KernelLogisticRegression:
        """Fit to ``(N, F)`` and ``(N,)``."""
        self.classes_ = np.unique(labels)
        self.gamma_ = self.gamma_scale / values.shape[1]
        chosen = np.sort(np.random.default_rng(self.seed).permutation(len(values))[: self.landmarks])
        self.landmarks_ = np.asarray(values)[chosen]
        self.linear_ = LogisticRegression(C=self.C, max_iter=500, class_weight="balanced")
        self.linear_.fit(rbf_kernel(values, self.landmarks_, self.gamma_), labels)
        return self

    def predict_proba(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give probabilities ``(N, K)``."""
        return np.asarray(self.linear_.predict_proba(rbf_kernel(values, self.landmarks_, self.gamma_)))

    def predict(self, values: NDArray[Any]) -> NDArray[Any]:
        """Give classes ``(N,)``."""
        return np.asarray(self.classes_[self.predict_proba(values).argmax(axis=1)])
