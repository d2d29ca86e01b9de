#!/usr/bin/env python3
"""Say whether this Triton replica serves every deployment: exit status 0 where it does. Runs inside NVIDIA's image, so it knows the standard library alone.

The gateway has a new replica load every model that is deployed, and those are the models of the repository. A replica is ready once all of them are; from
then on it stays ready as long as it lives, since a model that is deployed later is loaded by replicas that serve the others meanwhile. A model that does
not load at all must not keep every new replica out: after ``--patience`` seconds a living server is ready whatever it lacks.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

PARITY_PREFIX = "oteo-parity-"
"""Models that a training proves at the moment; they come and go."""


def _ask(url: str, *, body: bytes | None = None) -> bytes:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=8) as answer:
        content: bytes = answer.read()
        return content


def missing(url: str) -> list[str]:
    """Give the models of the repository that this replica does not serve.

    Parameters
    ----------
    url
        Triton's HTTP address.

    Raises
    ------
    OSError
        Triton does not answer.
    """
    ready: dict[str, bool] = {}
    for model in json.loads(_ask(f"{url}/v2/repository/index", body=b"{}")):
        name = str(model["name"])
        ready[name] = ready.get(name, False) or model.get("state") == "READY"
    return sorted(name for name, served in ready.items() if not served and not name.startswith(PARITY_PREFIX))


def is_ready(url: str, patience: float, state: Path) -> bool:
    """Tell whether the replica is ready.

    Parameters
    ----------
    url
        Triton's HTTP address.
    patience
        Seconds after the first question.
    state
        Folder that lives as long as the replica; what was found is kept there.
    """
    state.mkdir(parents=True, exist_ok=True)
    asked, served = state / "asked", state / "served"
    if not asked.exists():
        asked.write_text(repr(time.time()))
    try:
        _ask(f"{url}/v2/health/live")
        if served.exists():
            return True
        lacking = missing(url)
    except OSError as error:
        print(f"Triton does not answer: {error}", file=sys.stderr)
        return False
    if lacking and time.time() - float(asked.read_text()) < patience:
        print(f"not served yet: {', '.join(lacking[:20])}", file=sys.stderr)
        return False
    if lacking:
        print(f"the time is up; never served: {', '.join(lacking[:20])}", file=sys.stderr)
    served.touch()
    return True


def main() -> int:
    """Answer as the command line asks; give the exit status."""
    parser = argparse.ArgumentParser(prog="oteo-triton-ready", description="Say whether this Triton replica serves every deployment.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="Triton's HTTP address")
    parser.add_argument("--patience", type=float, default=600.0, help="seconds after which a model that does not load is not waited for")
    parser.add_argument("--state", type=Path, default=Path("/tmp/oteo-ready"), help="folder that lives as long as the replica")
    options = parser.parse_args()
    return 0 if is_ready(options.url, options.patience, options.state) else 1


if __name__ == "__main__":
    sys.exit(main())
