"""Deployments as tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from oteo.cli.session import table
from oteo.cli.show import facts, plural
from oteo.cli.words import enum_word, metric_text, moment, short
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import deployment_pb2, inference_pb2


def state_word(deployment: deployment_pb2.Deployment) -> str:
    """Give a deployment's state."""
    return enum_word(deployment_pb2.Deployment.State.Name(deployment.state), "STATE_")


def part(model: deployment_pb2.DeployedModel) -> str:
    """Give a model's part: ``"cells 90 % (champion)"``, ``"cells in bf16 100 %"``."""
    share = "shadow" if model.shadow else f"{model.traffic_percent} %"
    form = f" in {enum_word(automl_pb2.ModelVariant.Name(model.variant), 'MODEL_VARIANT_')}" if model.variant else ""
    return f"{short(model.model)}{form} {share}{f' ({model.alias})' if model.alias else ''}"


def parts(models: Iterable[deployment_pb2.DeployedModel]) -> str:
    """Give the models of a deployment in a line."""
    return ", ".join(part(model) for model in models)


def deployment_facts(deployment: deployment_pb2.Deployment) -> Text:
    """Give one deployment."""
    replicas = ", ".join(f"{r.address} {'ready' if r.ready else r.message or 'not ready'}" for r in deployment.replicas)
    off = deployment.adapt in (inference_pb2.ADAPT_MODE_UNSPECIFIED, inference_pb2.ADAPT_MODE_OFF)
    adapt = "" if off else enum_word(inference_pb2.AdaptMode.Name(deployment.adapt), "ADAPT_MODE_")
    return facts(
        [
            ("deployment", deployment.name),
            ("name", deployment.display_name),
            ("state", state_word(deployment)),
            ("why", deployment.message),
            ("models", parts(deployment.models)),
            ("adapt", f"{adapt}, {deployment.translator or 'the newest accepted translator'}" if adapt else ""),
            ("replicas", replicas),
            ("made", moment(deployment.create_time)),
            ("changed", moment(deployment.update_time)),
            ("generation", str(deployment.generation)),
            ("shift", shift_words(deployment.shift)),
            ("accuracy in use", accuracy_words(deployment)),
        ]
    )


def shift_words(shift: deployment_pb2.ShiftStatus) -> str:
    """Say how the watch for shift stands."""
    if not shift.HasField("update_time"):
        return shift.message
    figures = f"p {shift.p_value:.2g}, effect {shift.effect_size:.2f}, {shift.test}, {plural(shift.window_size, 'image')}"
    begun = f"ALARM since {moment(shift.alarm_time)}: " if shift.alarm else ""
    return f"{begun}{shift.message} ({figures})"


def accuracy_words(deployment: deployment_pb2.Deployment) -> str:
    """Give the accuracy on images that readers judged; empty without any."""
    if not deployment.HasField("live_accuracy"):
        return ""
    found = deployment.live_accuracy
    return f"{found.name} {metric_text(found)} on {plural(found.sample_count, 'image')} that readers judged"


def comparisons_table(found: Iterable[deployment_pb2.ShadowComparison]) -> Table:
    """Give how shadows compare with what was answered."""
    made = table(
        "shadow", "images", "missed", "agrees", "95 %", "times as long", right=("images", "missed", "agrees", "95 %", "times as long")
    )
    for one in found:
        seen = one.image_count > 0
        made.add_row(
            escape(short(one.model)),
            str(one.image_count),
            str(one.missed_count),
            f"{one.agreement:.3f}" if seen else "",
            f"{one.agreement_lower:.3f} to {one.agreement_upper:.3f}" if seen else "",
            f"{one.latency_ratio:.2f}" if seen else "",
        )
    return made


def revisions_table(found: Iterable[deployment_pb2.DeploymentRevision]) -> Table:
    """Give what a deployment asked for before, newest first."""
    made = table("revision", "models", "asked for", right=("revision",))
    for one in found:
        made.add_row(str(one.generation), escape(parts(one.models)), moment(one.create_time))
    return made


def deployment(given: deployment_pb2.Deployment) -> list[Text | Table]:
    """Give one deployment with its shadows and revisions, as far as it has any."""
    shown: list[Text | Table] = [deployment_facts(given)]
    if given.comparisons:
        shown.append(comparisons_table(given.comparisons))
    if given.revisions:
        shown.append(revisions_table(given.revisions))
    return shown


def deployments_table(deployments: Iterable[deployment_pb2.Deployment]) -> Table:
    """Give many deployments."""
    made = table("deployment", "state", "models", "replicas ready", "shift", "accuracy in use", "changed", right=("replicas ready",))
    for item in deployments:
        ready = f"{sum(r.ready for r in item.replicas)} of {len(item.replicas)}"
        shift = "[red]alarm[/]" if item.shift.alarm else "none found" if item.shift.HasField("update_time") else ""
        right = metric_text(item.live_accuracy) if item.HasField("live_accuracy") else ""
        made.add_row(short(item.name), state_word(item), escape(parts(item.models)), ready, shift, right, moment(item.update_time))
    return made
