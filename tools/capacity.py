"""How many replicas a load needs, what they cost, and how the chart's autoscaler would follow a day.

    python tools/capacity.py --peak 300 --per-replica 52
    python tools/capacity.py --peak 300 --per-replica 400 --values deploy/k8s/oteo/ci/production.yaml --price 1.20 --plot day.png
    python tools/capacity.py --trace day.csv --per-replica 52

``--per-replica`` is what `benchmarks/predict.py` measures for one Triton on the machine in question (requests a second, many callers). A trace is a CSV file of one
column of requests a second, evenly spread over the day; without one a hospital's day is taken: quiet nights, a peak in the morning, another in the afternoon.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
import yaml
from autoscaling import STEP, Day, Site, replicas_for, simulate
from chart_models.models import TritonScaling

CHART = Path(__file__).resolve().parent.parent / "deploy/k8s/oteo"

# Share of the peak by the hour, as imaging departments work: urgent cases at night, rounds in the morning, a second peak after noon.
HOSPITAL_DAY = (4, 3, 3, 3, 4, 8, 20, 55, 85, 100, 98, 90, 70, 75, 88, 80, 62, 42, 28, 20, 14, 10, 7, 5, 4)


def scaling_of(values: Path | None, changes: list[str]) -> tuple[TritonScaling, int, int, bool]:
    """Read ``triton.autoscaling`` of the chart's values with a preset and single changes over them; also the gateways, Triton's fixed replicas, and whether it has GPUs."""
    merged = yaml.safe_load((CHART / "values.yaml").read_text())
    if values is not None:
        merged = _over(merged, yaml.safe_load(values.read_text()) or {})
    settings = merged["triton"]["autoscaling"]
    for change in changes:
        name, _, value = change.partition("=")
        if name not in settings:
            raise SystemExit(f"triton.autoscaling has no {name!r}; it has {', '.join(settings)}")
        settings[name] = yaml.safe_load(value)
    gateway = merged["gateway"]
    gateways = gateway["autoscaling"]["minReplicas"] if gateway["autoscaling"]["enabled"] else gateway["replicas"]
    triton = merged["triton"]
    return TritonScaling(**settings), int(gateways), int(triton["replicas"]), bool(triton["gpu"]["enabled"])


def _over(base: dict[str, object], change: dict[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def read_trace(path: Path) -> list[float]:
    """Read requests a second, a row each; a heading is left out."""
    rows = [row[-1] for row in csv.reader(path.read_text().splitlines()) if row]
    if rows and not rows[0].replace(".", "", 1).isdigit():
        rows = rows[1:]
    try:
        rates = [float(value) for value in rows]
    except ValueError as error:
        raise SystemExit(f"{path}: {error}; a trace is one number of requests a second in each row") from error
    if len(rates) < 2 or min(rates) < 0:
        raise SystemExit(f"{path}: a trace needs two rates or more, none below 0")
    return rates


def plot(day: Day, site: Site, path: Path) -> None:
    """Draw the load, the replicas and what waits."""
    from matplotlib.figure import Figure

    hours = np.arange(len(day.arrived)) * STEP / 3600.0
    minute = max(1, round(60 / STEP))
    rate = np.convolve(day.arrived, np.ones(minute), "same") / (minute * STEP)
    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(hours, rate, label="requests a second", color="#0b6e99")
    above.plot(hours, day.ready * site.per_replica, label="what ready replicas answer", color="#d1662b")
    above.legend(loc="upper left")
    below.step(hours, day.wanted, where="post", label="replicas", color="#d1662b")
    waiting = below.twinx()
    waiting.plot(hours, day.inside, label="requests inside", color="#7b8794", linewidth=0.7)
    below.set_xlabel("hour")
    below.set_ylabel("replicas")
    waiting.set_ylabel("requests inside")
    figure.savefig(path)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-replica", type=float, required=True, help="requests a second of one replica at full load, measured")
    parser.add_argument("--peak", type=float, default=100.0, help="requests a second at the peak of the hospital's day")
    parser.add_argument("--trace", type=Path, help="CSV of requests a second over the day, in the place of the hospital's day")
    parser.add_argument("--hours", type=float, default=24.0, help="length of the trace")
    parser.add_argument("--values", type=Path, help="a preset or your own values, over the chart's")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=VALUE", help="a value of triton.autoscaling")
    parser.add_argument("--start-seconds", type=float, default=60.0, help="from the wish for a replica to its first answer")
    parser.add_argument(
        "--running",
        type=float,
        default=8.0,
        help="requests inside a replica that is full: its rate times the seconds of one alone, or its batch",
    )
    parser.add_argument("--cpu", action="store_true", help="Triton without GPUs")
    parser.add_argument("--utilisation", type=float, default=0.7, help="share of a replica's time that a steady load may take")
    parser.add_argument("--price", type=float, default=0.0, help="of one replica for an hour, in any currency")
    parser.add_argument("--concurrency", type=int, default=64, help="predict_concurrency of a gateway")
    parser.add_argument("--queue", type=int, default=256, help="predict_queue of a gateway")
    parser.add_argument("--plot", type=Path, help="picture of the day (PNG, SVG)")
    given = parser.parse_args()
    if given.per_replica <= 0 or not 0 < given.utilisation <= 1:
        parser.error("--per-replica must be above 0, --utilisation within 0 and 1")
    settings, gateways, replicas, gpu = scaling_of(given.values, given.changes)
    rates = read_trace(given.trace) if given.trace else [given.peak * share / 100.0 for share in HOSPITAL_DAY]
    site = Site(given.per_replica, given.running, given.start_seconds, given.concurrency * gateways, given.queue * gateways)
    day = simulate(rates, given.hours * 3600.0, settings, site, replicas=replicas, gpu=gpu and not given.cpu)
    steady = replicas_for(max(rates), given.per_replica, given.utilisation)
    answered, arrived = float(day.answered.sum()), float(day.arrived.sum())
    rows = [
        ("replicas for the peak, steady", f"{steady} at {given.utilisation:.0%} busy"),
        ("autoscaler", f"{settings.mode}, {settings.minReplicas} to {settings.maxReplicas}"),
        ("replicas over the day", f"{day.wanted.mean():.2f} on average, {day.wanted.max()} at most"),
        ("requests", f"{arrived:.0f}, {day.refused.sum() / max(1.0, arrived):.3%} told to come again"),
        ("waiting, median, p99", f"{day.wait_quantile(0.5):.2f} s, {day.wait_quantile(0.99):.2f} s"),
        ("replica hours", f"{day.replica_hours:.1f}, against {steady * given.hours:.1f} held for the peak"),
    ]
    if given.price:
        rows.append(("cost of a thousand images", f"{day.replica_hours * given.price / max(1.0, answered) * 1000:.4f}"))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    if steady > settings.maxReplicas and settings.mode != "none":
        print(f"maxReplicas is {settings.maxReplicas}: at the peak callers are refused or wait.", file=sys.stderr)
    if given.plot:
        plot(day, site, given.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
