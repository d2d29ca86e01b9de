"""Services start fast and stay small: what only jobs need is not imported by them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["torch", "torchvision", "timm", "sklearn", "pandas", "albumentations", "datumaro", "mlflow", "onnx", "matplotlib"]


@pytest.mark.parametrize("service", ["augment", "automl", "translate", "gateway"])
def test_a_service_imports_nothing_that_only_its_jobs_need(service):
    code = f"import sys, oteo_{service}.service; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_service_names_the_families_that_the_jobs_fit():
    from oteo_automl.candidates.classical import FAMILIES
    from oteo_automl.candidates.portfolio import FAMILIES as NAMES

    assert tuple(FAMILIES) == NAMES
