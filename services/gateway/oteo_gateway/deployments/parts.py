"""Whether models may stand in one deployment: shares, aliases, and that they answer the same question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from oteo_core.errors import InvalidArgument
from oteo_core.packages import ModelPackage
from oteo_gateway.deployments.records import ModelPart

_FIELD = "deployment.models"


def check_shares(parts: Sequence[ModelPart]) -> tuple[ModelPart, ...]:
    """Check shares, shadows, names and aliases, and give the parts with their shares filled in.

    Raises
    ------
    InvalidArgument
        ``NO_MODEL``, ``DUPLICATE_MODEL``, ``DUPLICATE_ALIAS`` or ``BAD_TRAFFIC``, with the field.
    """
    answering = [place for place, part in enumerate(parts) if not part.shadow]
    if not answering:
        raise InvalidArgument(
            "A deployment needs a model that answers."
            if not parts
            else "A deployment of shadows alone would answer nobody: one model must be no shadow.",
            reason="NO_MODEL",
            field=_FIELD,
        )
    ids, aliases = [part.model_id for part in parts], [part.alias for part in parts]
    for place, part in enumerate(parts):
        if part.model_id in ids[:place]:
            raise InvalidArgument(
                f"models/{part.model_id} is named twice; a model has one part in a deployment.",
                reason="DUPLICATE_MODEL",
                field=f"{_FIELD}[{place}].model",
            )
        if part.alias and part.alias in aliases[:place]:
            raise InvalidArgument(
                f"Two models go by {part.alias!r}; an alias names one.", reason="DUPLICATE_ALIAS", field=f"{_FIELD}[{place}].alias"
            )
        if part.shadow and part.percent:
            raise InvalidArgument(
                f"models/{part.model_id} is a shadow: it gets a copy of all traffic and answers none, so its traffic_percent must be 0, "
                f"not {part.percent}.",
                reason="BAD_TRAFFIC",
                field=f"{_FIELD}[{place}].traffic_percent",
            )
    only = answering[0]
    if len(answering) == 1:
        if parts[only].percent not in (0, 100):
            raise InvalidArgument(
                f"One model alone gets all the traffic: traffic_percent must be 100 or left out, not {parts[only].percent}.",
                reason="BAD_TRAFFIC",
                field=f"{_FIELD}[{only}].traffic_percent",
            )
        return tuple(replace(part, percent=100) if place == only else part for place, part in enumerate(parts))
    total = sum(parts[place].percent for place in answering)
    if total != 100:
        shares = " + ".join(str(parts[place].percent) for place in answering)
        raise InvalidArgument(
            f"The shares of the models that answer must be 100 percent together; they are {shares} = {total}.",
            reason="BAD_TRAFFIC",
            field=f"{_FIELD}[{only}].traffic_percent",
        )
    return tuple(parts)


def check_alike(packages: Sequence[ModelPackage]) -> None:
    """Refuse models that do not answer the same question: a caller must not see which of them answered by the classes.

    Raises
    ------
    InvalidArgument
        ``MODELS_DIFFER``: other tasks, or other classes, or the same in another order, by which label images count them.
    """
    first = packages[0]
    for place, package in enumerate(packages):
        if package.task != first.task:
            what = f"{package.task}, not {first.task} as {first.name}"
        elif list(package.classes) != list(first.classes):
            what = f"the classes {', '.join(package.classes)}, not {', '.join(first.classes)} as {first.name}"
        else:
            continue
        raise InvalidArgument(
            f"All models of a deployment must have one task and the same classes in the same order; {package.name} is for {what}.",
            reason="MODELS_DIFFER",
            field=f"{_FIELD}[{place}].model",
        )
