"""The contract as other languages' compilers get it: whole, and the same as what Python's code was made of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc_tools
import pytest
from google.protobuf import descriptor_pb2

VALIDATE = "buf/validate/validate.proto"


def compiled(sources: list[str], *options: str) -> dict[str, descriptor_pb2.FileDescriptorProto]:
    command = [sys.executable, "-m", "grpc_tools.protoc", "--include_imports", "--descriptor_set_out=/dev/stdout", *options, *sources]
    ran = subprocess.run(command, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr.decode()
    return {file.name: file for file in descriptor_pb2.FileDescriptorSet.FromString(ran.stdout).file}


def without_rules_of_rules(file: descriptor_pb2.FileDescriptorProto) -> descriptor_pb2.FileDescriptorProto:
    """Take the options of fields away that only validators read: all that the exported file leaves out."""
    for message in file.message_type:
        for field in message.field:
            for option, _ in field.options.ListFields():
                assert option.is_extension, option.full_name
            field.ClearField("options")
    return file


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    folder = tmp_path_factory.mktemp("contract")
    subprocess.run([sys.executable, str(repository / "tools/export_protos.py"), str(folder)], check=True)
    return folder


def test_what_is_exported_compiles_alone_to_the_same_descriptors(contract: Path, repository: Path, tmp_path: Path) -> None:
    sources = sorted(str(path.relative_to(contract)) for path in contract.rglob("*.proto"))
    assert not [source for source in sources if source.startswith("google/protobuf/")]
    found = compiled(sources, f"-I{contract}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}")
    # What `make protos` compiles, by the descriptors of the installed packages.
    image = tmp_path / "image.binpb"
    script = (
        "import pathlib, sys; sys.path.insert(0, 'tools'); import build_protos; "
        f"pathlib.Path({str(image)!r}).write_bytes(build_protos.dependencies().SerializeToString())"
    )
    subprocess.run([sys.executable, "-c", script], cwd=repository, check=True)
    ours = [source for source in sources if source.startswith("oteo/")]
    assert len(ours) == len(list((repository / "protos/oteo").rglob("*.proto")))
    wanted = compiled(ours, f"--descriptor_set_in={image}", f"-I{repository / 'protos'}")
    # The standard library's own files may be of another version there.
    for name in [name for name in wanted if not name.startswith("google/protobuf/")]:
        if name == VALIDATE:
            assert without_rules_of_rules(found[name]) == without_rules_of_rules(wanted[name])
        else:
            assert found[name] == wanted[name], name
    assert VALIDATE in wanted
    assert "google/rpc/error_details.proto" in found


def test_classes_of_the_contract_are_not_nested_in_their_files(contract: Path) -> None:
    """Java: `oteo.gateway.v1.PredictRequest`, not `oteo.gateway.v1.Inference.PredictRequest`."""
    for path in (contract / "oteo").rglob("*.proto"):
        assert "option java_multiple_files = true;" in path.read_text(), path
