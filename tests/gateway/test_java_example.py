"""The example in Java: compiled from the exported contract and run, where Debian's packages for it are."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from foreign_callers import hospital_gateway, run
from gateway_support import CLASSES, TOKEN, Backend, Loop, picture
from google.rpc import code_pb2
from waiting import patient

from oteo_core.errors import InvalidArgument, OteoError, Unavailable
from oteo_protos.gateway.v1 import inference_pb2

PROGRAMS = ("javac", "java", "protoc", "grpc_java_plugin")
FILES = (
    "/usr/include/google/protobuf/descriptor.proto",
    *(
        f"/usr/share/java/{name}.jar"
        for name in ("protobuf", "grpc-netty", "netty-codec-http2", "netty-tcnative", "perfmark-api", "geronimo-annotation-1.3-spec")
    ),
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> list[str]:
    """Compile the example as its README says; gives the command that runs it."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None] + [name for name in FILES if not Path(name).exists()]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)}; examples/java/README.md names Debian's packages")
    folder = tmp_path_factory.mktemp("java")
    contract, build = folder / "contract", folder / "build"
    subprocess.run([sys.executable, str(repository / "tools/export_protos.py"), str(contract)], check=True)
    made = subprocess.run(
        ["sh", str(repository / "examples/java/build.sh"), str(contract), str(build)],
        capture_output=True,
        text=True,
        timeout=patient(60),
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return ["sh", str(repository / "examples/java/run.sh"), str(build)]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory, example: list[str]) -> Iterator[dict[str, str]]:
    with hospital_gateway(tmp_path_factory.mktemp("hospital")) as environment:
        yield environment


@pytest.fixture
def green(tmp_path: Path) -> Path:
    path = tmp_path / "green.png"
    path.write_bytes(picture("green"))
    return path


@pytest.mark.parametrize("colour", CLASSES)
def test_an_image_is_answered_behind_tls(example: list[str], hospital: dict[str, str], tmp_path: Path, colour: str) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(picture(colour))
    ran = run([*example, "colours", str(image)], hospital)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0].startswith(f"{image}: {colour}")
    assert lines[1].startswith(f"  {colour} 0.")
    assert len(lines) == 1 + len(CLASSES)


@pytest.mark.parametrize(
    ("changed", "deployment", "said"),
    [
        ({"OTEO_TOKEN": "wrong"}, "colours", "UNAUTHENTICATED TOKEN_INVALID"),
        ({"OTEO_TOKEN": ""}, "colours", "UNAUTHENTICATED TOKEN_MISSING"),
        ({}, "nothing", "NOT_FOUND DEPLOYMENT_NOT_FOUND"),
    ],
)
def test_a_refusal_is_told_with_its_reason(
    example: list[str], hospital: dict[str, str], green: Path, changed: dict[str, str], deployment: str, said: str
) -> None:
    ran = run([*example, deployment, str(green)], {**hospital, **changed})
    assert ran.returncode == 1
    assert said in ran.stderr
    assert ran.stdout == ""


def test_a_gateway_that_cannot_prove_itself_is_not_spoken_to(example: list[str], hospital: dict[str, str], green: Path) -> None:
    """Java's own authorities did not sign the hospital's certificate; and it is for localhost, not for 127.0.0.1."""
    elsewhere = hospital["OTEO_ADDRESS"].replace("localhost", "127.0.0.1")
    for changed in ({"OTEO_CA_FILE": "", "OTEO_TLS": "true"}, {"OTEO_ADDRESS": elsewhere}):
        ran = run([*example, "colours", str(green)], {**hospital, **changed})
        assert ran.returncode == 1
        assert "UNAVAILABLE" in ran.stderr
        assert ran.stdout == ""


class Moody:
    """A server that refuses with the errors that it was given, then answers; plain, without TLS."""

    def __init__(self, loop: Loop, *errors: OteoError) -> None:
        self.loop, self.errors, self.calls = loop, list(errors), 0
        self.tokens: list[str] = []
        self.deadlines: list[float] = []
        self.backend = Backend(
            methods={
                "/oteo.gateway.v1.InferenceService/Predict": grpc.unary_unary_rpc_method_handler(
                    self._predict, inference_pb2.PredictRequest.FromString, inference_pb2.PredictResponse.SerializeToString
                )
            }
        )

    async def _predict(self, request: inference_pb2.PredictRequest, context: Any) -> inference_pb2.PredictResponse:
        self.calls += 1
        self.tokens.append(self.backend.metadata["authorization"])
        self.deadlines.append(context.time_remaining())
        if self.errors:
            error = self.errors.pop(0)
            status = error.to_status()
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            await context.abort(grpc.StatusCode[code_pb2.Code.Name(error.code)], error.message)
        answer = inference_pb2.PredictResponse()
        answer.classification.decision = request.deployment
        return answer

    def __enter__(self) -> Moody:
        self.loop.run(self.backend.start())
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run(self.backend.stop())

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "OTEO_ADDRESS": f"127.0.0.1:{self.backend.port}", "OTEO_TOKEN": TOKEN, "OTEO_CA_FILE": "", "OTEO_TLS": ""}


def away(seconds: float | None) -> Unavailable:
    return Unavailable("away", reason="NO_REPLICA", retry_after=seconds)


def test_an_unavailable_call_is_made_again_after_the_pause_that_was_asked_for(example: list[str], loop: Loop, green: Path) -> None:
    with Moody(loop, away(0.25), away(0.05)) as server:
        ran = run([*example, "colours", str(green)], server.environment)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"{green}: deployments/colours")
    assert ran.stderr.splitlines() == ["unavailable; again in 250 ms", "unavailable; again in 50 ms"]
    assert server.tokens == [f"Bearer {TOKEN}"] * 3
    # One deadline for all attempts together: each has less left than the one before.
    assert 10 >= server.deadlines[0] > server.deadlines[1] > server.deadlines[2] > 0


def test_a_pause_beyond_the_deadline_ends_it_at_once(example: list[str], loop: Loop, green: Path) -> None:
    with Moody(loop, away(60)) as server:
        ran = run([*example, "colours", str(green)], server.environment)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == ["UNAVAILABLE NO_REPLICA: away"]
    assert server.calls == 1


def test_attempts_end(example: list[str], loop: Loop, green: Path) -> None:
    with Moody(loop, *[away(0.01)] * 9) as server:
        ran = run([*example, "colours", str(green)], server.environment)
    assert ran.returncode == 1
    assert server.calls == 5


def test_other_errors_are_not_made_again(example: list[str], loop: Loop, green: Path) -> None:
    with Moody(loop, InvalidArgument("no image", reason="UNREADABLE_IMAGE")) as server:
        ran = run([*example, "colours", str(green)], server.environment)
    assert ran.returncode == 1
    assert ran.stderr.splitlines() == ["INVALID_ARGUMENT UNREADABLE_IMAGE: no image"]
    assert server.calls == 1
