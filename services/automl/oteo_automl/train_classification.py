"""The training of a classifier in its job."""

from __future__ import annotations

from contextlib import closing

from oteo_automl.candidates.checkpoints import AS_IS, Checkpoint
from oteo_automl.candidates.portfolio import PORTFOLIO
from oteo_automl.candidates.registry import BLEND, CANDIDATES, choose, matching
from oteo_automl.candidates.weights import has_weights
from oteo_automl.finish import finish
from oteo_automl.handover import make_winner
from oteo_automl.objectives import choose_objective
from oteo_automl.search.checkpoint_pieces import take_checkpoints
from oteo_automl.search.classification_pieces import Problem
from oteo_automl.search.classification_work import ClassificationWork, Settings
from oteo_automl.search.data import check_classes, check_parts, describe, leave_out, read_table
from oteo_automl.search.distillation import SHARE
from oteo_automl.search.fingerprint import choose_policy, describe_depth, take_fingerprint
from oteo_automl.search.folds import make_folds
from oteo_automl.search.held_out import held_out_answers
from oteo_automl.search.intervals import SECONDS, add_intervals
from oteo_automl.train_unlabelled import learn_from_unlabelled
from oteo_automl.training_job import Training
from oteo_automl.variant_request import classification_variants
from oteo_core.datasets import DatasetReader
from oteo_core.evaluation.operating import OperatingRequest
from oteo_core.graphs.triton import TritonParityClient
from oteo_core.packages import ModelPackage
from oteo_protos.automl.v1 import automl_pb2


def train_classification(training: Training, reader: DatasetReader) -> ModelPackage | None:
    """Train a classifier and publish it; None where only a plan was asked for.

    Raises
    ------
    InvalidArgument
        ``WRONG_TASK``, ``SINGLE_CLASS``, ``UNKNOWN_CANDIDATE``.
    FailedPrecondition
        ``NO_TEST_PART``, ``UNREADABLE_IMAGES``.
    """
    context, request, settings, budget = training.context, training.request, training.settings, training.budget
    with training.timed("read the samples"):
        data, samples = read_table(reader)
        check_parts(data, request.dataset)
        fingerprint = take_fingerprint(data)
    with training.executor() as executor:
        device = training.device(executor, networks=_has_networks(request))
        gpu = device.gpu
        policy = choose_policy(fingerprint, gpu=gpu, budget=budget.total, largest=settings.largest_input)
        pretrained = training.pretrained_uri
        candidates, reasons = choose(
            request.candidates,
            gpu=gpu,
            pretrained=bool(pretrained),
            budget=budget.total,
            smallest_side=policy.width,
            weights={one.name for one in PORTFOLIO if has_weights(pretrained, one.name)} if pretrained else None,
        )
        asked = Settings(
            candidates=candidates,
            objective=choose_objective(reader.info.task, request.objective),
            policy=policy,
            classes=data.classes,
            ids=data.samples,
            groups=data.groups,
            gpu_share=device.share,
            max_latency=training.max_latency,
            blend=not request.candidates or any(BLEND in matching(name) for name in request.candidates),
        )
        cache = training.images(reader, policy, "images.npy")
        with training.timed("decode the images"):
            context.progress(0.01, "decoding the images")
            left_out = leave_out(data, cache.build(reader, samples, check=context.check))
            data.images = cache.open()
        if left_out:
            check_classes(data)
            check_parts(data, request.dataset)
            fingerprint = take_fingerprint(data)
        rows = data.part("train", "validation")
        training_rows = data.parts[rows] == "train"
        folds, fold_count = make_folds(data.labels[rows], training_rows, [data.groups[row] for row in rows], seed=request.seed)
        given = take_checkpoints(
            [Checkpoint(one.uri, one.architecture, one.name, tuple(one.classes)) for one in request.checkpoints],
            training.checkpoints,
            data.classes,
            policy.channels,
        )
        for one in given:
            reasons[one.candidate] = f"asked for; {one.reason}"
            if one.fits:
                reasons[f"{one.candidate}{AS_IS}"] = "the checkpoint without further training"
        problem = Problem(
            cache=cache,
            labels=data.labels,
            rows=rows,
            folds=folds,
            fold_count=fold_count,
            classes=len(data.classes),
            seed=request.seed,
            checkpoints=training.checkpoints,
            pretrained_uri=pretrained,
            scratch=str(context.scratch),
            given={one.candidate: one for one in given},
            objective=asked.objective,
        )
        work = ClassificationWork(problem, asked)
        notes = [*filter(None, [device.note, describe(left_out) if left_out else ""])]
        if request.unlabelled_dataset:
            notes.append(
                f"{SHARE:.0%} of the time is kept for a student that learns from the unlabelled images of {request.unlabelled_dataset}."
            )
        plan = training.plan(
            work,
            executor,
            reasons,
            fingerprint=fingerprint.to_dict() | describe_depth(reader) | {"left_out_samples": [one.to_dict() for one in left_out]},
            folds=fold_count,
            input_size=policy.width,
            notes=notes,
        )
        if request.validate_only:
            return None
        for_student = SHARE * (budget.total - budget.reserve) if request.unlabelled_dataset else 0.0
        budget.reserve += for_student
        result, search = training.search(work, executor, plan)
        budget.reserve -= for_student
        result.trials = search.records()
        if request.unlabelled_dataset:
            learn_from_unlabelled(training, executor, reader, data, problem, asked, work, result)
        with training.timed("intervals of the trials"):
            add_intervals(
                result.trials,
                held_out_answers(problem, asked, (result.best, result.runner_up, result.baseline)),
                task=reader.info.task,
                classes=len(data.classes),
                objective=asked.objective,
                first=result.best.trial_id,
                seed=request.seed,
                seconds=min(SECONDS, 0.02 * budget.total),
            )
    winner = make_winner(
        result,
        data,
        reader,
        model_id=training.model_id,
        display_name=request.display_name,
        conformal_coverage=request.conformal_coverage,
        operating_points=[_operating(point) for point in request.operating_points],
        seed=request.seed,
        budget=budget.total,
        start_time=training.start_time,
        run_id=training.run_id(result.best.trial_id),
        labels=dict(request.labels),
        limits=training.limits,
    )
    winner.variants = classification_variants(request, data, result, gpu=gpu)
    winner.tensorrt = settings.tensorrt
    with closing(TritonParityClient(settings.triton_urls[0])) as client:
        package = finish(context, winner, client, deadline=budget.end, progress=training.finishing)
    training.done(package)
    return package


def _has_networks(request: automl_pb2.TrainModelRequest) -> bool:
    """Say whether anything that is asked for is a network's training."""
    asked = {known for name in request.candidates for known in matching(name)}
    return (
        not asked
        or bool(request.checkpoints or request.unlabelled_dataset)
        or any(CANDIDATES[name].architecture for name in asked if name != BLEND)
    )


def _operating(point: automl_pb2.OperatingPointRequest) -> OperatingRequest:
    kind = point.WhichOneof("target")
    return OperatingRequest(point.class_name, **{kind: getattr(point, kind)})
