"""The training of a detector or segmenter in its job."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

from oteo_automl.candidates.training import LEAST_STEPS
from oteo_automl.candidates.weights import find_weights
from oteo_automl.dense.base import DenseData, Facts, find_task
from oteo_automl.dense.cache import DenseCache
from oteo_automl.dense.finish import DenseWinner, finish_dense
from oteo_automl.dense.pieces import DenseProblem
from oteo_automl.dense.result import FittedNetwork
from oteo_automl.dense.work import DenseWork, choose_candidates, hold_out, mixing_time
from oteo_automl.objectives import choose_objective
from oteo_automl.search.data import check_parts, describe, leave_out
from oteo_automl.search.fingerprint import describe_depth, describe_images, input_channels
from oteo_automl.training_job import Training
from oteo_automl.variant_request import wanted
from oteo_core.datasets import DatasetReader
from oteo_core.graphs.triton import TritonParityClient
from oteo_core.packages import ModelPackage

_BLIND = 0.01
"""Value of an objective below which a network might as well have learnt nothing."""


def train_dense_task(training: Training, reader: DatasetReader) -> ModelPackage | None:
    """Train a detector or segmenter and publish it; None where only a plan was asked for.

    Raises
    ------
    InvalidArgument
        ``WRONG_TASK``, ``NO_OBJECTS``, ``UNKNOWN_CANDIDATE``, ``BAD_OBJECTIVE``, ``BUDGET_TOO_SMALL``.
    FailedPrecondition
        ``NO_TEST_PART``, ``UNREADABLE_IMAGES``.
    """
    context, request, settings, budget = training.context, training.request, training.settings, training.budget
    budget.reserve = min(training.reserve(dense=True), 0.6 * budget.total)
    task = find_task(reader.info.task)
    objective = choose_objective(task.name, request.objective)
    with training.timed("read the samples"):
        data = task.read(reader)
        check_parts(data, request.dataset)
    with training.executor() as executor:
        device = training.device(executor)
        gpu = device.gpu
        channels = input_channels(data.channels)
        policy = task.policy(data, gpu=gpu, budget=budget.total, channels=channels, largest=settings.largest_input)
        pretrained = {
            one.name: bool(training.pretrained_uri) and find_weights(training.pretrained_uri, one.architecture) is not None
            for one in task.candidates
        }
        chosen, reasons = choose_candidates(task, request.candidates, gpu=gpu, pretrained=pretrained)
        cache = DenseCache(task.name, training.images(reader, policy, "dense/images.npy"))
        with training.timed("decode the images"):
            context.progress(0.01, "decoding the images and their annotations")
            left_out = leave_out(data, cache.build(reader, data, check=context.check))
            images, targets = cache.open()
        check_parts(data, request.dataset)
        train, held_out, held_out_words = hold_out(data, request.seed)
        facts = task.facts(targets, train, policy, len(data.classes))
        problem = DenseProblem(
            task=task.name,
            cache=cache,
            train=train,
            held_out=held_out,
            classes=len(data.classes),
            facts=facts,
            seed=request.seed,
            checkpoints=training.checkpoints,
            pretrained_uri=training.pretrained_uri,
        )
        mixing = mixing_time(budget.total - budget.reserve, request.candidates)
        budget.reserve += mixing
        work = DenseWork(
            problem,
            task,
            chosen,
            objective,
            policy,
            device.share,
            training.max_latency,
            groups=data.groups,
            mixing_seconds=mixing,
        )
        late = training.make_room(work, executor, held_out=len(held_out), test=len(data.part("test")))
        plan = training.plan(
            work,
            executor,
            reasons,
            fingerprint=_fingerprint(data, facts) | describe_depth(reader) | {"left_out_samples": [one.to_dict() for one in left_out]},
            folds=0 if held_out is train else 1,
            input_size=max(policy.width, policy.height),
            notes=[f"Candidates are compared on {held_out_words}.", *filter(None, [device.note, late, describe(left_out)])],
        )
        if request.validate_only:
            return None
        result, search = training.search(work, executor, plan)
        budget.reserve -= mixing
    result.trials = search.records()
    if warning := little_learnt(result.best):
        result.plan.notes.append(warning)
        result.plan.summary += f" {warning}"
        training.show_plan(result.plan)
    winner = DenseWinner(
        model_id=training.model_id,
        display_name=request.display_name or reader.info.display_name,
        task=task,
        data=data,
        reader=reader,
        result=result,
        images=images,
        targets=targets,
        held_out=held_out,
        held_out_words=held_out_words,
        policy=policy,
        facts=facts,
        seed=request.seed,
        budget=budget.total - budget.late,
        start_time=training.start_time,
        run_id=training.run_id(result.best.trial_id),
        labels=dict(request.labels),
        limits=training.limits,
    )
    winner.variants, winner.max_variant_loss = wanted(request, gpu=gpu)
    winner.tensorrt = settings.tensorrt
    with closing(TritonParityClient(settings.triton_urls[0])) as client:
        package = finish_dense(context, winner, client, deadline=budget.end, progress=training.finishing)
    training.done(package, warning)
    return package


def little_learnt(network: FittedNetwork) -> str:
    """Warn of a network that is published though it has learnt next to nothing; empty where there is nothing to warn of."""
    steps = network.parameters.get("steps", LEAST_STEPS)
    short = f"was taught for {steps} step{'s' * (steps > 1)} only" if steps < LEAST_STEPS else ""
    blind = ""
    if math.isnan(network.objective):
        blind = "could not be judged on the images held out"
    elif network.objective < _BLIND:
        blind = "finds next to nothing that is right in the images held out"
    if not short and not blind:
        return ""
    return f"Careful: {network.candidate.name} {' and '.join(filter(None, [short, blind]))}. It is not fit for use: give more time, or look at the annotations."


def _fingerprint(data: DenseData, facts: Facts) -> dict[str, Any]:
    return {
        **describe_images(data.sizes, data.channels, deep=data.deep, bit_depth=data.bit_depth),
        "train_count": len(data.part("train")),
        "validation_count": len(data.part("validation")),
        "test_count": len(data.part("test")),
        "group_count": len(set(data.groups)),
        "classes": list(data.classes),
        "left_out": dict(data.left_out),
        "objects": facts,
    }
