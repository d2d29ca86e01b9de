"""The example in C#: compiled and run where .NET and its packages are; everywhere else each type, property and method of the contract that it names is looked
for in the generated code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from waiting import patient

from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc

SERVICE = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
NO_PACKAGES = re.compile(r"error (NU1101|NU1102|NU1301|NU1303|NETSDK1004|NETSDK1045)\b")
"""Errors of a restore that found no packages, and of an SDK too old for .NET 8: they say nothing of the program."""
INHERITED = {"Parser": "pb::MessageParser", "Descriptor": "pbr::MessageDescriptor"}


@dataclass
class Generated:
    """What protoc wrote: properties with their types by class, values by enum; nested ones are named Outer.Types.Inner."""

    classes: dict[str, dict[str, str]] = field(default_factory=dict)
    enums: dict[str, set[str]] = field(default_factory=dict)

    def read(self, text: str) -> None:
        """Read a generated file by its indentation."""
        outer: list[tuple[int, str]] = []
        lines = text.splitlines()
        for number, line in enumerate(lines):
            depth = len(line) - len(line.lstrip())
            while outer and line.strip() and depth <= outer[-1][0] and line.strip()[0] not in "#{":
                outer.pop()
            prefix = ".".join(name for _, name in outer)
            if match := re.match(r"\s*public (?:sealed|static) partial class (\w+)", line):
                outer.append((depth, match[1]))
                self.classes.setdefault(".".join(filter(None, [prefix, match[1]])), {})
            elif match := re.match(r"\s*public enum (\w+) \{", line):
                values = lines[number + 1 :]
                ended = next(at for at, value in enumerate(values) if value.strip() == "}")
                found = {value[1] for entry in values[:ended] if (value := re.search(r"(\w+) = -?\d+,", entry))}
                self.enums[".".join(filter(None, [prefix, match[1]]))] = found
            elif (match := re.match(r"\s*public (?:static )?([\w:.<>, ]+) (\w+) \{", line)) and prefix in self.classes:
                self.classes[prefix][match[2]] = match[1]


def plain(kind: str) -> str:
    """Give a generated type's name without its namespace."""
    return re.sub(r"^global::(?:\w+\.)*V1\.|^global::Google\.Rpc\.", "", kind)


def element(kind: str) -> str:
    """Give the type of what a repeated field holds."""
    match = re.fullmatch(r"pbc::RepeatedField<(.+)>", kind)
    assert match, kind
    return plain(match[1])


@pytest.fixture(scope="module")
def project(repository: Path) -> ElementTree.Element:
    return ElementTree.fromstring((repository / "examples/csharp/Predict.csproj").read_text())


@pytest.fixture(scope="module")
def source(repository: Path) -> str:
    """Give the code without comments and without what it says to people."""
    text = re.sub(r"//.*", "", (repository / "examples/csharp/Predict.cs").read_text())
    return re.sub(r'"[^"{}]*"', '""', text)


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    subprocess.run([sys.executable, str(repository / "tools/export_protos.py"), str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def generated(project: ElementTree.Element, contract: Path, tmp_path_factory: pytest.TempPathFactory) -> Generated:
    protoc = shutil.which("protoc")
    if protoc is None or not (Path(protoc).parent.parent / "include/google/protobuf/descriptor.proto").exists():
        pytest.skip(
            "protoc with its protos is not here, and the one in grpcio-tools knows no C#; Debian: apt-get install protobuf-compiler libprotobuf-dev"
        )
    folder = tmp_path_factory.mktemp("csharp")
    patterns = [entry.attrib["Include"].removeprefix("$(Contract)/") for entry in project.iter("Protobuf")]
    files = [path for pattern in patterns for path in sorted(contract.glob(pattern))]
    assert all(list(contract.glob(pattern)) for pattern in patterns), patterns
    command = [protoc, f"-I{contract}", f"--csharp_out={folder}", "--csharp_opt=base_namespace=", *map(str, files)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    found = Generated()
    for path in [*(folder / "Oteo").rglob("*.cs"), *(folder / "Google/Rpc").glob("*.cs")]:
        found.read(path.read_text())
    return found


def variables(source: str, generated: Generated) -> dict[str, str]:
    """Give the variables and parameters whose type is a class of the contract; the example writes no ``var``."""
    declared = re.findall(r"\b([A-Z][\w.]*)\?? (\w+)(?= =|[,)]| in )", source)
    # Aliases: using RpcStatus = Google.Rpc.Status;
    aliases = {name: full.rsplit(".", 1)[1] for name, full in re.findall(r"using (\w+) = ([\w.]+);", source)}
    found = {(name, kind) for given, name in declared if (kind := aliases.get(given, given)) in generated.classes}
    # The example gives a name to things of one type alone, so that this reading need not know where each is valid.
    assert len(found) == len(dict(found))
    return dict(found)


def test_the_project_generates_all_that_the_example_imports(project: ElementTree.Element, contract: Path) -> None:
    """What is imported must be compiled too, or the C# compiler misses it."""
    patterns = [entry.attrib["Include"].removeprefix("$(Contract)/") for entry in project.iter("Protobuf")]
    given = {str(path.relative_to(contract)) for pattern in patterns for path in contract.glob(pattern)}
    for name in given:
        imports = re.findall(r'^import "(.+)";', (contract / name).read_text(), flags=re.MULTILINE)
        assert {other for other in imports if not other.startswith("google/protobuf/")} <= given, name


def test_every_property_that_is_read_is_in_the_generated_code(source: str, generated: Generated) -> None:
    known = variables(source, generated)
    assert {"request", "answer", "classes", "score", "found", "region", "info", "asked", "status"} <= set(known)
    read = 0
    for name, chain in re.findall(r"(?<![\w.])(\w+)\??\.((?:\w+)(?:\.\w+)*)", source):
        kind = known.get(name, "")
        for member in chain.split(".") if kind else []:
            properties = {**INHERITED, **generated.classes[kind]}
            assert member in properties, f"{name}.{chain}: {kind} has no {member}"
            read += 1
            kind = plain(properties[member])
            if kind not in generated.classes:
                break
    assert read >= 15
    # What loops go over are repeated fields of what their variables are.
    loops = re.findall(r"foreach \(([\w.]+) \w+ in (\w+)\.(\w+)(?:\.(\w+))?\)", source)
    for kind, name, member, inner in loops:
        if kind in generated.classes:
            holder, last = (plain(generated.classes[known[name]][member]), inner) if inner else (known[name], member)
            assert element(generated.classes[holder][last]) == kind
    assert len([kind for kind, *_ in loops if kind in generated.classes]) == 2


def test_every_property_that_is_set_is_in_the_generated_code(source: str, generated: Generated) -> None:
    checked = []
    for kind, body in re.findall(r"new (\w+)\s*\{((?:[^{}]|\{[^{}]*\})*)\}", source):
        if kind in generated.classes:
            outside = re.sub(r"\{[^{}]*\}", "", body)
            names = re.findall(r"(\w+) = ", outside)
            assert names
            assert set(names) <= set(generated.classes[kind]), kind
            checked.append(kind)
    assert checked == ["PredictRequest"]
    inner = re.search(r"Image = new ImageSource \{ (\w+) =", source)
    assert inner
    assert generated.classes["PredictRequest"]["Image"].endswith(".ImageSource")
    assert inner[1] in generated.classes["ImageSource"]


def test_cases_of_the_answer_are_in_the_generated_code(source: str, generated: Generated) -> None:
    cases = re.findall(r"case (PredictResponse\.ResultOneofCase)\.(\w+):", source)
    assert {case for _, case in cases} == generated.enums["PredictResponse.ResultOneofCase"] - {"None"}


def test_the_call_is_one_of_the_services(source: str) -> None:
    """The plugin for C# is not here; its rule is Service.ServiceClient with MethodAsync for a unary call."""
    client = f"{SERVICE.name}.{SERVICE.name}Client"
    assert f"new {client}(channel)" in source
    assert re.findall(r"inference\.(\w+)Async\(request", source) == ["Predict"]
    method = SERVICE.methods_by_name["Predict"]
    assert (method.input_type.name, method.output_type.name) == ("PredictRequest", "PredictResponse")
    assert not method.client_streaming
    assert not method.server_streaming


def test_no_name_of_the_contract_shadows_one_of_the_language(source: str, generated: Generated) -> None:
    """Imported whole, a namespace must not bring a second Task or Status: the compiler could not tell which is meant."""
    whole = re.findall(r"^using ((?:Oteo|Google\.Rpc)[\w.]*);", source, flags=re.MULTILINE)
    assert whole == ["Oteo.Gateway.V1"]
    ours = {name for name in [*generated.classes, *generated.enums] if "." not in name}
    gateway = {m.name for m in inference_pb2.DESCRIPTOR.message_types_by_name.values()} | set(inference_pb2.DESCRIPTOR.enum_types_by_name)
    assert gateway <= ours
    assert not gateway & {"Task", "Status", "Type", "Random", "Metadata", "Duration", "Any", "File", "Environment", "Console", "Timeout"}


@pytest.fixture(scope="module")
def program(contract: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Compile the example; gives the command that runs it."""
    dotnet = shutil.which("dotnet")
    if dotnet is None:
        pytest.skip("dotnet is not here; examples/csharp/README.md says what it takes")
    folder = tmp_path_factory.mktemp("built")
    for name in ("Predict.cs", "Predict.csproj"):
        shutil.copy(repository / "examples/csharp" / name, folder)
    command = [dotnet, "build", "--nologo", "--configuration=Release", f"--output={folder}/out", f"-p:Contract={contract}"]
    environment = {
        **os.environ,
        "DOTNET_CLI_TELEMETRY_OPTOUT": "1",
        "DOTNET_NOLOGO": "1",
        "DOTNET_CLI_HOME": str(folder),
        "DOTNET_CLI_UI_LANGUAGE": "en",
    }
    made = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=patient(100))
    said = made.stdout + made.stderr
    if made.returncode and (missing := NO_PACKAGES.search(said)):
        pytest.skip(f"the packages of examples/csharp/Predict.csproj, or .NET 8, are not to be had here: {missing[0]}")
    assert made.returncode == 0, said
    return [dotnet, str(folder / "out/Predict.dll")]


class Answering(inference_pb2_grpc.InferenceServiceServicer):
    """Is away once, then answers; refuses who bears no token."""

    def __init__(self) -> None:
        self.calls = 0

    def Predict(self, request: inference_pb2.PredictRequest, context: grpc.ServicerContext) -> inference_pb2.PredictResponse:
        self.calls += 1
        if ("authorization", "Bearer a-token") not in tuple(context.invocation_metadata()):
            self._refuse(context, grpc.StatusCode.UNAUTHENTICATED, error_details_pb2.ErrorInfo(reason="TOKEN_MISSING", domain="oteo"))
        if self.calls == 1:
            pause = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=10_000_000))
            self._refuse(context, grpc.StatusCode.UNAVAILABLE, pause)
        answer = inference_pb2.PredictResponse(deployment=request.deployment)
        answer.classification.decision = request.image.content.decode()
        answer.classification.scores.add(class_name="green", probability=0.75)
        return answer

    @staticmethod
    def _refuse(
        context: grpc.ServicerContext, code: grpc.StatusCode, detail: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo
    ) -> None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message="refused", details=[packed])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "refused")


@pytest.fixture
def served() -> Iterator[tuple[Answering, str]]:
    servicer = Answering()
    server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"127.0.0.1:{port}"
    server.stop(0).wait()


def test_the_example_compiles_and_answers(program: list[str], served: tuple[Answering, str], tmp_path: Path) -> None:
    servicer, address = served
    image = tmp_path / "image.png"
    image.write_bytes(b"green")

    def run(token: str) -> subprocess.CompletedProcess[str]:
        given = {**os.environ, "OTEO_ADDRESS": address, "OTEO_TOKEN": token, "OTEO_CA_FILE": "", "OTEO_TLS": ""}
        return subprocess.run(
            [*program, "colours", str(image)], env=given, capture_output=True, text=True, check=False, timeout=patient(40)
        )

    ran = run("a-token")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == [f"{image}: green", "  green 0.750"]
    assert (servicer.calls, "unavailable; again in 10 ms" in ran.stderr) == (2, True)
    ran = run("")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "Unauthenticated TOKEN_MISSING" in ran.stderr
