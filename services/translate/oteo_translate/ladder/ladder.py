"""Climbing the ladder: ways are tried from cheap to dear within the budget, each is judged, and doing nothing is what has to be beaten.

Adaptation of the model upon the best translations comes after one setting of each, and before the other settings.

Nothing is recommended where the model sees no difference between the two sets, where nothing beats doing nothing with confidence, or where what beats it
moves, erases or invents anatomy. That is an answer, with its evidence, and no failure.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from oteo_core.errors import OteoError
from oteo_core.evaluation.bootstrap import LEVEL, Interval
from oteo_core.packages import MetricValue
from oteo_translate.adaptation.base import Adaptation, AdaptedModel
from oteo_translate.domains import Domain
from oteo_translate.ladder.anatomy import Anatomy, Gate, translate
from oteo_translate.ladder.domains import Sets, opposite_tones, prepare_sets
from oteo_translate.ladder.judging import Gain, Judge, Look
from oteo_translate.ladder.rare import inspect_more
from oteo_translate.ladder.result import LABEL_FREE, NOTHING, WITH_LABELS, Candidate, Evidence, LadderResult
from oteo_translate.ladder.unlabelled import ALPHA, MASKS_WEIGHT, AtHome, doubt
from oteo_translate.methods.base import NEGATIVE, STYLE, TRAINED, TRAINING_FREE, FitContext, Method, Translation
from oteo_translate.tasks.model import TaskModel

COMBINED = 2
"""Translations, the best so far, that model-side adaptation is tried upon."""

_LAST = 1000
"""A turn behind those of any grid."""

Seen = Callable[[Evidence, Translation | None, AdaptedModel | None], None]
"""Told each way that was tried."""

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Tried:
    """A way that was fitted and looked at."""

    evidence: Evidence
    look: Look
    translation: Translation | None = None
    adapted: AdaptedModel | None = None
    gate: Gate | None = None


def usual_candidates(
    methods: Mapping[str, Method],
    adaptations: Mapping[str, Adaptation],
    *,
    opposite: bool = False,
    given: Mapping[str, Mapping[str, Any]] | None = None,
) -> tuple[list[Candidate], list[Candidate]]:
    """Give every way with every setting of its grid, from cheap to dear.

    Parameters
    ----------
    methods, adaptations
        As of `climb`.
    opposite
        What is bright in one set is dark in the other (`opposite_tones`): negatives are as likely as what keeps the tone, and otherwise hardly at all.
    given
        As of `climb`.

    Returns
    -------
    first, others
        One setting of each way that trains nothing: judging costs more than any of them, so that a short budget goes to different ways and not to the
        settings of one. Then the other settings, one of each way in turn; style transfer; and what is trained.
    """
    dear = {TRAINING_FREE: 0, STYLE: 1, TRAINED: 2}
    given = given or {}
    rows = [
        (dear[method.kind], place, method.cost, Candidate(name, dict(setting)))
        for name, method in methods.items()
        for place, setting in _in_turn([given[name]] if name in given else method.grid(), opposite)
    ]
    rows += [
        (0, place, way.cost, Candidate(adaptation=name, settings=dict(setting)))
        for name, way in adaptations.items()
        for place, setting in _in_turn([given[name]] if name in given else way.grid(), opposite)
    ]
    rows.sort(key=lambda row: row[:3])
    everything, count = [candidate for *_, candidate in rows], sum(row[:2] == (0, 0) for row in rows)
    return everything[:count], everything[count:]


def _in_turn(grid: Sequence[Mapping[str, Any]], opposite: bool) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Give a way's settings, each with its turn: a turn of their own for negatives where tones are opposite, and otherwise the last."""
    turns: Counter[bool] = Counter()
    for setting in grid:
        negative = setting.get("tone") == NEGATIVE
        yield (turns[negative] if opposite or not negative else _LAST), setting
        turns[negative] += 1


def climb(
    model: TaskModel,
    shifted: Domain,
    home: Domain,
    *,
    methods: Mapping[str, Method],
    adaptations: Mapping[str, Adaptation],
    context: FitContext,
    second: TaskModel | None = None,
    candidates: Sequence[Candidate] | None = None,
    given: Mapping[str, Mapping[str, Any]] | None = None,
    seen: Seen = lambda evidence, translation, adapted: None,
) -> LadderResult:
    """Try ways to undo a shift, and choose, or say that nothing is to be recommended.

    Parameters
    ----------
    model
        The frozen task model.
    shifted, home
        Prepared as the model takes them. Truths of shifted images, where there are some, are what is judged by; home's serve label-shift correction.
    methods, adaptations
        To try: `oteo_translate.methods.registry.METHODS`, `oteo_translate.adaptation.registry.ADAPTATIONS`, or some of them.
    context
        Seed, ``check``, ``progress`` and the deadline (seconds since 1970) of all of it.
    second
        Another network that was trained on the same images, asked for its opinion where there are no labels; None: there is none.
    candidates
        In their order; None: `usual_candidates`.
    given
        Parameters of methods and adaptations, by name: each is tried with these in the place of its grid.
    seen
        Told each way as it comes, with what was fitted; what it gained is not yet known then.

    Returns
    -------
    LadderResult
        Evidence of every way, those that were not tried among them.

    Raises
    ------
    InvalidArgument
        ``TOO_FEW_IMAGES``, ``CHANNELS_MISMATCH``, ``SIZE_MISMATCH``, ``NOT_FINITE``.
    """
    sets = prepare_sets(model, shifted, home, context.seed)
    context = replace(context, network=model.network) if context.network is None else context
    judge = Judge(model, sets.judged, sets.home, second=second, seed=context.seed, check=context.check)
    climber = _Climber(model, sets, judge, methods, adaptations, context, seen, given or {})
    began = time.time()
    nothing = judge.look(model, sets.judged.images)
    climber.judging_seconds = time.time() - began
    start = _Tried(
        Evidence(Candidate(), figures=nothing.figures(), seconds=climber.judging_seconds, reason="what has to be beaten"), nothing
    )
    known = "the two sets hold the same images" if sets.same else ""
    if not known and not judge.by_labels and judge.p_same > ALPHA:
        known = f"the model sees no difference between the two sets (permutation test, p = {judge.p_same:.2f})"
    if not known:
        first, others = list(candidates or ()), list[Candidate]()
        if candidates is None:
            first, others = usual_candidates(methods, adaptations, opposite=climber.opposite, given=given)
        for candidate in first:
            climber.try_one(candidate)
        for candidate in [*(climber.combinations() if candidates is None else ()), *others]:
            climber.try_one(candidate)
    return climber.conclude(start, known)


class _Climber:
    def __init__(
        self,
        model: TaskModel,
        sets: Sets,
        judge: Judge,
        methods: Mapping[str, Method],
        adaptations: Mapping[str, Adaptation],
        context: FitContext,
        seen: Seen,
        given: Mapping[str, Mapping[str, Any]],
    ) -> None:
        self.model, self.sets, self.judge, self.methods, self.adaptations = model, sets, judge, methods, adaptations
        self.context, self.seen, self.given = context, seen, given
        self.opposite = opposite_tones(sets.fit, sets.home)
        self.anatomy = Anatomy(model, sets.judged, sets.gate, opposite=self.opposite, seed=context.seed, check=context.check)
        self.judging_seconds = 0.0
        self._spent, self._thought = 0.0, 0.0
        self.tried: list[_Tried] = []
        self.untried: list[Evidence] = []

    def try_one(self, candidate: Candidate) -> None:
        """Fit a way and look at it; what fails or has no time is evidence too."""
        self.context.check()
        began = time.time()
        self.context.progress(0.0, candidate.label)
        refusal = self._refusal(candidate, began)
        if refusal:
            self._left_out(candidate, refusal, 0.0)
            return
        try:
            tried = self._fit(candidate, began)
        except OteoError as error:
            self._left_out(candidate, str(error), time.time() - began)
            return
        except (ValueError, RuntimeError, ArithmeticError) as error:
            # What one way cannot reckon with (a matrix that cannot be inverted) is its own evidence, and no reason to give up the others.
            _log.exception("%s failed", candidate.label)
            self._left_out(candidate, f"it failed: {type(error).__name__}: {error}", time.time() - began)
            return
        tried.evidence.seconds = time.time() - began
        if candidate.method not in self.methods or self.methods[candidate.method].kind != TRAINED:
            self._spent += tried.evidence.seconds
            self._thought += self._likely_cost(candidate) + self.judging_seconds * (2.0 if candidate.method else 1.0)
        self.tried.append(tried)
        self.seen(tried.evidence, tried.translation, tried.adapted)

    def _refusal(self, candidate: Candidate, now: float) -> str:
        if candidate.adaptation:
            refusal = self.adaptations[candidate.adaptation].refusal(self.model, self.sets.home)
            if refusal:
                return refusal
        left = self.context.deadline - now
        need = self.judging_seconds * (2.0 if candidate.method else 1.0)
        method = self.methods.get(candidate.method)
        # A training stops at its deadline with what it has; the others take what they take.
        if method is None or method.kind != TRAINED:
            need += self._likely_cost(candidate)
        # On a slow or a busy machine ways take longer than they are said to: as those before them did.
        need *= max(1.0, self._spent / self._thought) if self._thought > 0 else 1.0
        return f"no time is left for it ({max(0.0, left):.0f} s of the budget)" if left < need else ""

    def _likely_cost(self, candidate: Candidate) -> float:
        pixels = len(self.sets.fit) * self.model.package.input.width * self.model.package.input.height
        share = pixels / (100 * 128 * 128)
        cost = self.methods[candidate.method].cost if candidate.method else 0.0
        return share * (cost + (self.adaptations[candidate.adaptation].cost if candidate.adaptation else 0.0))

    def _fit(self, candidate: Candidate, began: float) -> _Tried:
        images, fitting, translation, gate = self.sets.judged.images, self.sets.fit, None, None
        context = replace(self.context, deadline=self._own_deadline(candidate, began))
        if candidate.method:
            way = self.methods[candidate.method]
            translation = way.fit(fitting, self.sets.home, candidate.parameters, context).eval()
            images = translate(translation, images, self.context.check)
            gate = self.anatomy.inspect(translation, images)
        adapted = None
        if candidate.adaptation:
            if translation is not None:
                # Those are translated already, and enough: translating hundreds more may take longer than all the rest.
                judged = self.sets.judged
                fitting = Domain(judged.name, images, judged.ids, judged.groups)
            adapted = self.adaptations[candidate.adaptation].adapt(self.model, fitting, self.sets.home, candidate.settings, context)
        look = self.judge.look(adapted.model if adapted else self.model, images)
        evidence = Evidence(candidate, figures=look.figures() | (gate.figures if gate else {}), structure=gate.figure if gate else None)
        if adapted is not None:
            evidence.figures |= self.anatomy.at_home(adapted.model, translation)
            evidence.figures |= {name: float(value) for name, value in adapted.details.items() if isinstance(value, (int, float))}
        return _Tried(evidence, look, translation, adapted, gate)

    def _own_deadline(self, candidate: Candidate, now: float) -> float:
        """Give a training its share of what is left: as much as each of the trainings still to come."""
        method = self.methods.get(candidate.method)
        end = self.context.deadline - 2.0 * self.judging_seconds
        if method is None or method.kind != TRAINED or not np.isfinite(end):
            return end
        names = [one.candidate.method for one in [*(tried.evidence for tried in self.tried), *self.untried]]
        coming = sum(1 for name, other in self.methods.items() if other.kind == TRAINED and name not in names)
        return now + (end - now) / max(1, coming)

    def _left_out(self, candidate: Candidate, why: str, seconds: float) -> None:
        _log.info("%s was not tried: %s", candidate.label, why)
        evidence = Evidence(candidate, reason=why, seconds=seconds, tried=False)
        self.untried.append(evidence)
        self.seen(evidence, None, None)

    def combinations(self) -> list[Candidate]:
        """Give the usual adaptation of statistics upon the best translations that keep structure, and upon the best of each frequency method's kind."""
        ways = [(way.cost, name) for name, way in self.adaptations.items() if "batch norms" in way.needs]
        if not ways:
            return []
        name = min(ways)[1]
        rows = self.judge.labelled if self.judge.by_labels else None
        ones = np.ones((1, len(rows) if rows is not None else len(self.sets.judged)))
        good = [one for one in self.tried if one.translation is not None and one.adapted is None and not (one.gate and one.gate.complaint)]
        good.sort(key=lambda one: -float((one.look.figure or one.look.criterion)(ones)[0]))
        found: dict[str, Candidate] = {}
        for one in good:
            found.setdefault(one.evidence.candidate.method, one.evidence.candidate)
        chosen = list(found.values())[:COMBINED]
        if "fda" in found and found["fda"] not in chosen:
            # Its low frequencies and the statistics of normalisations undo different things: measured on stained cells, together they win where neither does alone.
            chosen.append(found["fda"])
        setting = dict(self.given.get(name, self.adaptations[name].grid()[0]))
        return [replace(one, adaptation=name, settings=setting) for one in chosen]

    def conclude(self, start: _Tried, known: str) -> LadderResult:
        """Compare all ways with doing nothing, and choose."""
        criterion = WITH_LABELS if self.judge.by_labels else LABEL_FREE
        gains = self.judge.gains(start.look, [one.look for one in self.tried])
        metric = self.model.metric if criterion == WITH_LABELS else "label_free_criterion"
        count = len(self.judge.labelled) if self.judge.by_labels else len(self.sets.judged)
        for one, gain in zip(self.tried, gains, strict=True):
            self._judge(one, gain, metric, criterion, count, start)
        ones = np.ones((1, count))
        start.evidence.score = _figure(metric, float((start.look.figure or start.look.criterion)(ones)[0]), None, count)
        # The sure gain decides: a larger one that is less sure may be luck.
        good = sorted((one for one in self.tried if one.evidence.accepted), key=lambda one: _rank(one.evidence))
        choice = next((one for one in good if self._passes_last(one)), None)
        tried = sorted((one.evidence for one in [start, *self.tried]), key=_rank)
        reason = choice.evidence.reason if choice else known or self._why_not()
        details = {"p_same": self.judge.p_same, "masks_kept_untouched": self.anatomy.masks_kept}
        return LadderResult(
            [*tried, *self.untried],
            choice.evidence if choice else None,
            reason,
            criterion,
            (count, len(np.unique(self.judge.groups))),
            details,
            choice.translation if choice else None,
            choice.adapted if choice else None,
        )

    def _judge(self, one: _Tried, gain: Gain, metric: str, criterion: str, count: int, start: _Tried) -> None:
        evidence = one.evidence
        evidence.score = _figure(metric, gain.score, gain.score_interval, count)
        evidence.gain = _figure(f"{metric}_gain", gain.value, gain.interval, count)
        evidence.figures["p_value"] = gain.p_value
        words = "by labels" if criterion == WITH_LABELS else "label-free"
        span = f" ({gain.interval.lower:+.3f} to {gain.interval.upper:+.3f})" if gain.interval else ""
        told = f"{gain.value:+.3f}{span} against doing nothing, {words}"
        if one.gate is not None and one.gate.complaint:
            evidence.reason = f"rejected: {one.gate.complaint}"
        elif gain.interval is None or not np.isfinite(gain.value):
            evidence.reason = "not recommended: too few groups of images to tell"
        else:
            sure = gain.interval.lower > 0 and gain.p_value < ALPHA
            if criterion == WITH_LABELS:
                worse = "" if sure else f"not surely better: {told}"
            else:
                home = self._at_home(evidence)
                evidence.figures["sure_gain"] = gain.interval.lower + MASKS_WEIGHT * home.gain
                against, farther = one.look.contradiction(start.look), one.look.is_farther(start.look)
                worse = doubt(home, gain.value, sure, contradiction=against, farther=farther, told=told) or one.look.disowned(start.look)
                found = f"on home images given the shifted look {home.kept:.2f} of what is there, without it {home.untouched:.2f}"
                if sure:
                    told += f"; {found}"
                else:
                    # What recommends it comes first: the criterion alone would not.
                    told = f"{found} (p = {home.p_value:.2g} of this way alone); the criterion says {told}"
                if "second_agreement" in evidence.figures:
                    mine, theirs = (one["second_agreement"] for one in (evidence.figures, start.evidence.figures))
                    told += f"; a second network agrees {mine:.2f} with the answers, without it {theirs:.2f}"
            evidence.reason = f"not recommended: {worse}" if worse else f"better: {told}"
            evidence.accepted = not worse

    def _at_home(self, evidence: Evidence) -> AtHome:
        figures, method = evidence.figures, self.methods.get(evidence.candidate.method)
        known = method is not None and method.undoes_imitation(evidence.candidate.parameters)
        return AtHome(figures["masks_kept"], figures["masks_kept_untouched"], figures["masks_p_value"], known)

    def _passes_last(self, one: _Tried) -> bool:
        """Inspect what is about to be recommended on the images that were not judged: rare spoiling shows on many images alone."""
        translation, more = one.translation, self.sets.unjudged
        if one.gate is None or translation is None or not len(more):
            return True

        def goes_on() -> bool:
            self.context.check()
            return time.time() < self.context.deadline

        found = one.gate.inspection.and_also(inspect_more(more.images, more.ids, lambda part: translate(translation, part), goes_on))
        one.evidence.figures |= found.figures()
        if found.complaint:
            one.evidence.accepted, one.evidence.reason = False, f"rejected: {found.complaint}"
        return not found.complaint

    def _why_not(self) -> str:
        if not self.tried:
            return "no way could be tried: " + ("; ".join(sorted({one.reason for one in self.untried})[:3]) or "there is none")
        best = max(self.tried, key=lambda one: _value(one.evidence.gain))
        return f"nothing is recommended; the best of {len(self.tried)} ways was {best.evidence.candidate.label}: {best.evidence.reason}"


def _figure(name: str, value: float, interval: Interval | None, count: int) -> MetricValue | None:
    if not np.isfinite(value):
        return None
    if interval is None:
        return MetricValue(name, value, sample_count=count)
    return MetricValue(name, value, interval.lower, interval.upper, LEVEL, sample_count=count)


def _value(figure: MetricValue | None) -> float:
    return -np.inf if figure is None else figure.value


def _lower(figure: MetricValue | None) -> float:
    return -np.inf if figure is None or figure.lower is None else figure.lower


def _rank(evidence: Evidence) -> tuple[bool, float]:
    gain = 0.0 if evidence.candidate.name == NOTHING else evidence.figures.get("sure_gain", _lower(evidence.gain))
    return not evidence.accepted, -gain
