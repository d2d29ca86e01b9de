"""From a manifest that is begun to a published package: export, proof on Triton, variants, shifts, report, publishing; the same for every task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from oteo_automl.exporting.network_file import network_files
from oteo_automl.exporting.program_file import program_files
from oteo_automl.exporting.second_network import SecondNetwork, second_files
from oteo_automl.extras import Proof, add_extras
from oteo_automl.packaging.variants import VariantRequest
from oteo_automl.publishing import FinishContext, Steps, prove, publish, spare_seconds, used, write_graph
from oteo_automl.report.data import ReportData
from oteo_automl.report.front import front_points
from oteo_automl.report.page import write_card, write_html
from oteo_core.evaluation.shifts import ShiftReport, shift_metrics
from oteo_core.graphs.export import Exported
from oteo_core.graphs.outputs import Output
from oteo_core.graphs.parity import BATCH, ParityClient
from oteo_core.graphs.running import run_torch
from oteo_core.packages import ModelPackage


@dataclass(slots=True)
class Draft:
    """What differs between tasks once a manifest is begun.

    Parameters
    ----------
    package
        Complete in what decides an answer, and in its metrics.
    served, outputs
        What is exported, and what it gives.
    images
        Prepared images ``(N, H, W, C)`` that runtimes are compared on.
    statistics
        The file of `oteo_automl.publishing.reference_of`.
    shifts
        Measures under simulated shifts within so many seconds.
    rival_shifts
        The same for other models of the search, by their trials' ids, the most interesting first.
    page
        Gathers the report; what is common to all tasks is filled in afterwards.
    predictions
        Writes the answers on the test part: contents by file name.
    variants, tensorrt
        What is asked for beside the graph; see `oteo_automl.extras.add_extras`.
    start_time
        When the work began, seconds since 1970; 0: not known.
    second
        Another network of the search that goes beside the model; None: there is none.
    batch, batching
        Images in a request of the proof; Triton's batching, see `config_pbtxt`.
    marks
        Share of all that is done before each of the six steps; writing the program and the second network shares that of the shifts.
    """

    package: ModelPackage
    served: torch.nn.Module
    outputs: Sequence[Output]
    images: NDArray[Any]
    statistics: bytes
    shifts: Callable[[float], ShiftReport | None]
    page: Callable[[Exported], ReportData]
    predictions: Callable[[], Mapping[str, bytes]]
    variants: Callable[[], VariantRequest | None]
    tensorrt: str
    start_time: float
    second: SecondNetwork | None = None
    batch: int = BATCH
    batching: Mapping[str, Any] = field(default_factory=dict)
    rival_shifts: Mapping[str, Callable[[float], ShiftReport | None]] = field(default_factory=dict)
    marks: tuple[float, float, float, float, float, float] = (0.35, 0.6, 0.7, 0.72, 0.75, 0.95)


def complete(
    ctx: FinishContext,
    client: ParityClient,
    draft: Draft,
    step: Steps,
    *,
    deadline: float,
    sleep: Callable[[float], None] = time.sleep,
) -> ModelPackage:
    """Export, prove and publish; see `oteo_automl.finish.finish` for what it raises.

    Parameters
    ----------
    ctx, client
        The job, and a Triton.
    draft
        What to publish.
    step
        Times the steps, those before among them.
    deadline
        When all must be done, seconds since 1970.
    sleep
        How to wait.
    """
    package = draft.package
    with step("export", draft.marks[0]):
        exported, config, files = write_graph(package, draft.served, draft.outputs, draft.images, **draft.batching)

    with step("parity", draft.marks[1]):
        proof = Proof(config, files, draft.images, draft.outputs, run_torch(draft.served, draft.images, draft.batch), draft.batch)
        parity = prove(
            ctx, client, config, files, proof.images, proof.outputs, proof.expected, deadline=deadline, sleep=sleep, batch=proof.batch
        )
        package.parity_error = parity.error

    with step("variants", draft.marks[2]):
        extras = add_extras(ctx, client, package, proof, draft.variants(), draft.tensorrt, deadline=deadline, sleep=sleep)

    with step("program", draft.marks[3]):
        names = [output.name for output in draft.outputs]
        program = program_files(draft.served, package.input, names, spare_seconds(deadline))
        program |= second_files(package, draft.second, draft.images, spare_seconds(deadline))

    with step("simulated shifts", draft.marks[3]):
        shifts = draft.shifts(spare_seconds(deadline))
        if shifts is not None:
            package.metrics += shift_metrics(shifts)
            _compare_shifts(draft, shifts, deadline)

    with step("report", draft.marks[4]):
        package.training_time = used(draft.start_time)
        page = draft.page(exported)
        page.steps = dict(step.seconds)
        page.shifts, page.front = shifts, front_points(package.trials, package.details["winner_trial"])
        contents = {
            "report.html": write_html(page),
            "README.md": write_card(page),
            "reference.npz": draft.statistics,
            f"{package.triton_path}/config.pbtxt": proof.config.encode(),
            **{f"{package.triton_path}/{name}": content for name, content in files.items()},
            **network_files(draft.served),
            **program,
            **extras,
            **draft.predictions(),
        }

    with step("publish", draft.marks[5]):
        return publish(ctx, package, contents, step.seconds, exported, parity, draft.start_time)


def _compare_shifts(draft: Draft, own: ShiftReport, deadline: float) -> None:
    """Note the mean figure under simulated shifts with the trials of the winner and its rivals, for which the same shifts were measured in the time that is left."""
    trials = {trial.id: trial for trial in draft.package.trials}
    reports = {str(draft.package.details["winner_trial"]): own}
    met = {(one.name, one.strength) for one in own.results}
    for place, (trial, measure) in enumerate(draft.rival_shifts.items()):
        found = measure(spare_seconds(deadline) / (len(draft.rival_shifts) - place))
        # Another set of shifts, or other images, is another figure.
        if found is None or {(one.name, one.strength) for one in found.results} != met or found.sample_count != own.sample_count:
            continue
        reports[trial] = found
    if len(reports) < 2:
        return
    for trial, report in reports.items():
        if trial in trials:
            trials[trial].metrics.append(shift_metrics(report)[0])
