"""The values of the Helm chart as Pydantic models, and the JSON schema that comes of them.

``python tools/chart_values.py`` writes ``deploy/k8s/oteo/values.schema.json``; with ``--check`` it says whether that file is up to date. Helm refuses values
that the schema does not know, so a misspelt key fails before anything is installed. Settings of the services are taken from their own classes: a setting
that a service does not have cannot be given.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from chart_models.cluster import Disruption, Image, Images, Logging, Monitoring, PodIds, PrePull, Priorities, Spread
from chart_models.common import Name, Values
from chart_models.models import MlflowValues, RayValues, TritonValues
from chart_models.services import Access, AugmentValues, AutoMLValues, GatewayValues, TranslateValues
from chart_models.stores import S3, Backup, Migrations, Postgresql, Secrets
from chart_models.traffic import NetworkPolicies, Traffic
from pydantic import ConfigDict, Field

SCHEMA = Path(__file__).resolve().parent.parent / "deploy/k8s/oteo/values.schema.json"


class ChartValues(Values):
    """All values of the chart ``oteo``."""

    model_config = ConfigDict(extra="forbid", title="Values of the chart oteo")

    nameOverride: str = Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=40)
    clusterDomain: Name
    image: Image
    images: Images
    secrets: Secrets
    logging: Logging
    podIds: PodIds
    access: Access
    gateway: GatewayValues
    augment: AugmentValues
    automl: AutoMLValues
    translate: TranslateValues
    triton: TritonValues
    ray: RayValues
    mlflow: MlflowValues
    migrations: Migrations
    postgresql: Postgresql
    s3: S3
    backup: Backup
    traffic: Traffic
    networkPolicies: NetworkPolicies
    priorities: Priorities
    topologySpread: Spread
    disruptionBudgets: Disruption
    prePull: PrePull
    monitoring: Monitoring
    # Helm adds it to what it validates.
    global_: dict[str, Any] = Field(default={}, alias="global")


def schema() -> dict[str, Any]:
    """Give the JSON schema of the values."""
    found = ChartValues.model_json_schema()
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["$comment"] = "Written by tools/chart_values.py from Pydantic models; do not edit."
    plain: dict[str, Any] = _plain(found)
    return plain


def _plain(node: Any, *, names: bool = False) -> Any:
    """Take out what only repeats the key: titles that Pydantic makes of names, and defaults, which values.yaml has."""
    if isinstance(node, dict):
        dropped = () if names else ("title", "default")
        return {
            key: _plain(value, names=key in ("properties", "$defs") and not names)
            for key, value in node.items()
            if key not in dropped or (key == "title" and value == "Values of the chart oteo")
        }
    return [_plain(item) for item in node] if isinstance(node, list) else node


def main() -> int:
    """Write the schema, or compare; give the exit status."""
    parser = argparse.ArgumentParser(description="Write the schema of the chart's values.")
    parser.add_argument("--check", action="store_true", help="say whether the file is up to date, and write nothing")
    text = json.dumps(schema(), indent=1) + "\n"
    if parser.parse_args().check:
        if SCHEMA.is_file() and SCHEMA.read_text() == text:
            return 0
        print(f"{SCHEMA} is not what tools/chart_values.py gives: run `make chart-schema`", file=sys.stderr)
        return 1
    SCHEMA.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
