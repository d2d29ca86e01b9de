"""``oteo shift``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from oteo.cli import show
from oteo.cli.options import RequestId, Timeout, Wait
from oteo.cli.progress import finish
from oteo.cli.session import Session, command, table
from oteo.cli.words import local_path, metric_text, short
from oteo.errors import OteoApiError
from oteo_protos.translate.v1 import translate_pb2 as pb

_VERDICTS = {
    pb.SHIFT_KIND_NONE: ("green", "no shift was found"),
    pb.SHIFT_KIND_COVARIATE: ("red", "the images look different"),
    pb.SHIFT_KIND_PREVALENCE: ("yellow", "the classes come in other shares; images of a class look as they did"),
    pb.SHIFT_KIND_BOTH: ("red", "the images look different, and the classes come in other shares"),
}
_TESTS = {"mmd": "kernel test", "ks": "figure by figure", "c2st": "telling apart", "prevalence": "class shares"}
_FEATURES = {
    "intensity": "image statistics",
    "output": "the model's outputs",
    "embedding": "what the model sees",
    "labels": "annotations",
    "answers": "the model's answers",
}
_EFFECTS = {"mmd": "discrepancy", "ks": "distance", "c2st": "AUROC", "prevalence": "part that changed class"}
_SHOWN = 10


def shift(
    session: Session,
    reference: Annotated[
        str,
        typer.Argument(
            metavar="HOME_OR_MODEL", help="A model, whose training domain is meant, or a dataset: models/…, datasets/… or a name."
        ),
    ],
    dataset: Annotated[str, typer.Argument(help="The dataset in question.")],
    alpha: Annotated[float, typer.Option("--alpha", min=0, max=0.5, help="Chance of a false alarm that is accepted; default 0.05.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every draw.")] = 0,
    request_id: RequestId = "",
    wait: Wait = True,
    timeout: Timeout = None,
) -> None:
    """Test whether images still come from the domain that a model knows, and say what kind of change it is."""
    handle = session.client.shifts.measure(
        find_reference(session, reference), dataset, alpha=alpha, seed=seed, request_id=request_id or None
    )

    def done(response: pb.MeasureShiftResponse) -> None:
        session.show(response, *shown(response, alpha or 0.05))

    finish(session, handle, "shift", wait, timeout, done)


def find_reference(session: Session, name: str) -> str:
    """Give the full name of a model or a dataset.

    Raises
    ------
    OteoApiError
        NOT_FOUND: there is neither; INVALID_ARGUMENT, ``AMBIGUOUS_NAME``: there are both.
    """
    if "/" in name:
        return name
    client = session.client
    found = [
        full for full, get in ((f"models/{name}", client.models.get), (f"datasets/{name}", client.datasets.get)) if _is_there(get, name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise OteoApiError(
            "INVALID_ARGUMENT",
            f"there is a model and a dataset {name!r}: write {' or '.join(found)}",
            reason="AMBIGUOUS_NAME",
            field="reference",
        )
    raise OteoApiError("NOT_FOUND", f"there is neither a model nor a dataset {name!r}", reason="REFERENCE_NOT_FOUND", field="reference")


def _is_there(get: Callable[[str], Any], name: str) -> bool:
    try:
        get(name)
    except OteoApiError as error:
        # A name that no model can have may still be a dataset's.
        if error.code in ("NOT_FOUND", "INVALID_ARGUMENT"):
            return False
        raise
    return True


def shown(response: pb.MeasureShiftResponse, alpha: float) -> list[Text | Table]:
    """Give a measurement for a person."""
    colour, verdict = _VERDICTS.get(response.kind, ("", "not known"))
    made = table("test", "of", "effect", "would have shown", "p", "", right=("effect", "would have shown", "p"))
    for test in response.tests:
        rings = test.p_value <= alpha
        p_value = f"{test.p_value:.3f}" if test.p_value >= 0.001 else "< .001"
        made.add_row(
            _TESTS.get(test.test, test.test),
            _FEATURES.get(test.feature, test.feature),
            f"{test.effect_size:.3f}",
            f"{test.detectable_effect:.3f}",
            f"[red]{p_value}[/]" if rings else p_value,
            f"[dim]{_EFFECTS.get(test.test, '')}[/]",
        )
    loss = response.expected_loss
    rows = [
        (
            f"expected loss of {loss.name.removesuffix('_loss')}",
            f"{metric_text(loss)}, without labels" if response.HasField("expected_loss") else "",
        ),
        ("images that differ most", ", ".join(short(name) for name in response.extreme_samples[:_SHOWN])),
        ("report", local_path(response.report_uri)),
    ]
    return [Text(verdict, style=f"bold {colour}".strip()), made, show.facts(rows)]


def add(root: typer.Typer) -> None:
    """Add ``oteo shift``."""
    command(root, "shift")(shift)
