"""The examples run against a gateway as they are printed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from gateway_support import CLASSES, TOKEN, Loop, deploy_model, picture, publish_model, running_gateway, settings_for
from waiting import patient

from oteo_core.artifacts import open_store
from oteo_local.triton import start


@pytest.mark.parametrize("script", ["predict.py", "predict_asyncio.py"])
def test_the_python_examples_answer_for_a_folder(loop: Loop, tmp_path: Path, repository: Path, script: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for colour in CLASSES:
        (images / f"{colour}.png").write_bytes(picture(colour))
    (images / "zzz.png").write_bytes(b"no image")
    with start(tmp_path / "model-repository", timeout=patient(30)) as triton:
        settings = settings_for(tmp_path, triton_urls=[triton.address])
        publish_model(open_store(settings), "colours")
        with running_gateway(loop, settings, log_dir=tmp_path / "logs") as running:
            deploy_model(running.channel, "colours")
            command = [sys.executable, str(repository / "examples" / "python" / script), "colours", str(images)]
            environment = {**os.environ, "OTEO_ADDRESS": running.address, "OTEO_TOKEN": TOKEN}
            ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=patient(40), check=False)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    for colour in CLASSES:
        assert f"{images / colour}.png: {colour}" in lines
    assert lines[-1].startswith(f"{images / 'zzz.png'}: no answer: ")
