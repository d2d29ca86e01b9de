"""Labels that are likely wrong: confident learning on out-of-fold probabilities of a simple classifier.

After Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 2021): a sample counts for class j where
its probability of j is at least the mean that samples labelled j have; samples so counted for another class than their label are the suspects,
in the order of how much the given label loses.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from oteo_augment.auditing.data import AuditData
from oteo_augment.auditing.features import GROUPS
from oteo_augment.auditing.findings import AuditFinding, CheckResult, plural
from oteo_core.datasets import Severity

_NAME = "label_errors"
_FOLDS = 5
_FIT_ON = 5000
_COMPONENTS = 64
_FEWEST = 10
_WORTH = 0.6
"""Share of the way from chance to certainty that the classifier's balanced accuracy must go, for its word to count."""
_GIVEN_AT_MOST = 0.1
_OTHER_AT_LEAST = 0.8
_SURE = 0.95


def run(data: AuditData) -> CheckResult:
    """Report suspects, or say why none can be named."""
    places = [
        i for i in data.readable if len(data.samples[i].labels) == 1 and data.measured[i].features and not data.samples[i].derived_from
    ]
    names = [data.samples[i].labels[0] for i in places]
    classes = [name for name in data.info.classes if names.count(name) >= _FEWEST]
    keep = [order for order, name in enumerate(names) if name in set(classes)]
    places = [places[order] for order in keep]
    if len(classes) < 2:
        return CheckResult(note=f"Not looked at: fewer than two classes have {_FEWEST} samples.")
    labels = np.array([classes.index(data.samples[i].labels[0]) for i in places])
    features = np.stack([np.frombuffer(data.measured[i].features, np.float16) for i in places])
    groups = data.clusters()[places]
    probabilities = out_of_fold(features, labels, groups, len(classes))
    if probabilities is None:
        return CheckResult(note="Not looked at: too few groups in some class to leave a fold out.")
    guesses = probabilities.argmax(axis=1)
    accuracy = float(np.mean([(guesses[labels == k] == k).mean() for k in range(len(classes))]))
    chance = 1 / len(classes)
    if (accuracy - chance) / (1 - chance) < _WORTH:
        note = f"No suspect is named: the simple classifier's balanced accuracy is {accuracy:.2f} (chance {chance:.2f}), too low for its word to count."
        return CheckResult(note=note, figures={"balanced_accuracy": round(accuracy, 4)})
    found = []
    for order, other in suspects(labels, probabilities):
        index = places[order]
        given, said = float(probabilities[order, labels[order]]), float(probabilities[order, other])
        severity = Severity.WARNING if said >= _SURE else Severity.INFO
        told = (
            f"it is labelled {classes[labels[order]]!r}; a simple classifier trained without it says {classes[other]!r} ({said:.0%}; "
            f"{given:.1%} for its label). Look at it with somebody who knows."
        )
        found.append(AuditFinding(_NAME, severity, "LABEL_SUSPECT", told, data.samples[index].id, score=said - given))
    note = (
        f"{plural(len(found), 'suspect')} among {plural(len(places), 'image')}; the simple classifier (form, texture, colour; {_FOLDS} folds by group) has "
        f"a balanced accuracy of {accuracy:.2f}. Rare but right images are suspects too."
    )
    return CheckResult(tuple(found), note, {"balanced_accuracy": round(accuracy, 4)})


def suspects(labels: NDArray[Any], probabilities: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Give (sample, class that it likely is), the surest first.

    Parameters
    ----------
    labels, probabilities
        (N,) and (N, K), out of fold.
    """
    count = probabilities.shape[1]
    means = np.array([probabilities[labels == k, k].mean() for k in range(count)])
    over = np.where(probabilities >= means, probabilities, -1.0)
    other = over.argmax(axis=1)
    rows = np.arange(len(labels))
    given, said = probabilities[rows, labels], probabilities[rows, other]
    picked = (over[rows, other] >= 0) & (other != labels) & (given <= _GIVEN_AT_MOST) & (said >= _OTHER_AT_LEAST)
    order = np.flatnonzero(picked)
    order = order[np.argsort(given[order] - said[order], kind="stable")]
    return [(int(row), int(other[row])) for row in order]


def out_of_fold(features: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any], count: int) -> NDArray[np.float64] | None:
    """Give each sample's probabilities by a classifier that saw neither it nor its group.

    Parameters
    ----------
    features, labels, groups
        (N, F), (N,) 0 to count - 1, (N,).
    count
        Number of classes.

    Returns
    -------
    ndarray or None
        (N, K), or None where some class has samples in a single group.
    """
    # Loaded here: a service that only takes requests needs none of it.
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

    folds = min(_FOLDS, *(len(np.unique(groups[labels == k])) for k in range(count)))
    if folds < 2:
        return None
    # One thread: sums in another order would make another report.
    with threadpool_limits(1):
        draw = np.random.Generator(np.random.Philox(key=0))
        part = np.sort(draw.permutation(len(labels))[:_FIT_ON])
        sample = features[part].astype(np.float32)
        # Every kind of number counts as much as any other, however many there are of it.
        weight = np.concatenate([np.full(size, size**-0.5, np.float32) for size in GROUPS])
        centre, scale = sample.mean(axis=0), weight / (sample.std(axis=0) + 1e-2)
        components = min(_COMPONENTS, len(part) - 1)
        pca = PCA(components, svd_solver="randomized" if len(part) > 500 else "full", random_state=0).fit((sample - centre) * scale)
        reduced = np.concatenate(
            [pca.transform((features[i : i + 4096].astype(np.float32) - centre) * scale) for i in range(0, len(features), 4096)]
        )
        reduced = reduced / (reduced[:, 0].std() + 1e-9)
        answer = np.zeros((len(labels), count))
        for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(reduced, labels, groups):
            model = LogisticRegression(C=3.0, max_iter=1000).fit(reduced[train], labels[train])
            answer[np.ix_(test, model.classes_)] = model.predict_proba(reduced[test])
    return answer
