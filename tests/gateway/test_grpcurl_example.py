"""The example with grpcurl: run where grpcurl is; everywhere, what it would send is sent as reflection describes it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from access_support import bearing
from foreign_callers import hospital_gateway, run
from gateway_support import CLASSES, TOKEN, picture
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

# Stands in for grpcurl: writes what it was given, with what is on standard input.
STAND_IN = """#!{python}
import json, os, sys
given = {{"arguments": sys.argv[1:], "input": sys.stdin.read()}}
with open(os.environ["GIVEN"], "w") as file:
    json.dump(given, file)
"""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with hospital_gateway(tmp_path_factory.mktemp("hospital")) as environment:
        yield environment


@pytest.fixture
def script(repository: Path) -> list[str]:
    return ["sh", str(repository / "examples/grpcurl/predict.sh")]


@pytest.fixture
def stand_in(tmp_path: Path) -> dict[str, str]:
    """Give an environment whose grpcurl writes down how it was called."""
    programs = tmp_path / "programs"
    programs.mkdir()
    program = programs / "grpcurl"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "GIVEN": str(tmp_path / "given.json")}


def test_grpcurl_is_answered_behind_tls(script: list[str], hospital: dict[str, str], tmp_path: Path) -> None:
    if shutil.which("grpcurl") is None:
        pytest.skip("grpcurl is not here; no registry that the tests install from has a maintained one")
    image = tmp_path / "image.png"
    for colour in CLASSES:
        image.write_bytes(picture(colour))
        ran = run([*script, "colours", str(image)], hospital)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["classification"]["decision"] == colour
    refused = run([*script, "nothing", str(image)], hospital)
    assert refused.returncode != 0
    assert "DEPLOYMENT_NOT_FOUND" in refused.stderr


def test_what_grpcurl_is_given_is_a_call_of_the_gateway(
    script: list[str], hospital: dict[str, str], stand_in: dict[str, str], tmp_path: Path
) -> None:
    # Larger than an argument of a program may be.
    image = tmp_path / "image.png"
    image.write_bytes(picture("green", 96) + np.random.default_rng(0).bytes(300_000))
    callers = {name: hospital[name] for name in ("OTEO_ADDRESS", "OTEO_TOKEN", "OTEO_CA_FILE")}
    ran = run([*script, "colours", str(image)], {**stand_in, **callers})
    assert ran.returncode == 0, ran.stderr
    given = json.loads(Path(stand_in["GIVEN"]).read_text())
    *options, address, method = given["arguments"]
    assert address == hospital["OTEO_ADDRESS"]
    assert options[options.index("-d") + 1] == "@"
    assert options[options.index("-cacert") + 1] == hospital["OTEO_CA_FILE"]
    assert "-plaintext" not in options
    assert TOKEN not in " ".join(given["arguments"])
    assert options[options.index("-H") + 1] == "authorization: Bearer ${OTEO_TOKEN}"
    # Called as grpcurl does it: by the descriptors that the gateway's reflection gives.
    credentials = grpc.ssl_channel_credentials(Path(hospital["OTEO_CA_FILE"]).read_bytes())
    with grpc.secure_channel(address, credentials) as channel:
        reflected = grpc.intercept_channel(channel, Bearing())
        service, name = method.split("/")
        found = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(reflected)).FindServiceByName(service)
        described = found.FindMethodByName(name)
        request = json_format.Parse(given["input"], message_factory.GetMessageClass(described.input_type)())
        call = channel.unary_unary(
            f"/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        assert call(request, timeout=120, metadata=bearing(TOKEN)).classification.decision == "green"


class Bearing(grpc.StreamStreamClientInterceptor):
    """Puts the token into calls of reflection."""

    def intercept_stream_stream(self, continuation, details, requests):
        return continuation(details._replace(metadata=[*(details.metadata or ()), *bearing(TOKEN)]), requests)


@pytest.mark.parametrize(
    ("variables", "transport"), [({}, ["-plaintext"]), ({"OTEO_TLS": "true"}, []), ({"OTEO_CA_FILE": "a b.pem"}, ["-cacert", "a b.pem"])]
)
def test_the_transport_is_chosen_as_by_the_sdk(
    script: list[str], stand_in: dict[str, str], tmp_path: Path, variables: dict[str, str], transport: list[str]
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(picture("red"))
    none = {"OTEO_CA_FILE": "", "OTEO_TLS": "", "OTEO_TOKEN": "x"}
    assert run([*script, "colours", str(image)], {**stand_in, **none, **variables}).returncode == 0
    arguments = json.loads(Path(stand_in["GIVEN"]).read_text())["arguments"]
    assert arguments[4 : arguments.index("-expand-headers")] == transport


def test_a_wrong_usage_is_told(script: list[str]) -> None:
    ran = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "usage" in ran.stderr
