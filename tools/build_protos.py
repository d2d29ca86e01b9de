"""Generate Python code and type stubs from ``protos/oteo`` into ``protos/oteo_protos``.

The protos that ours import (``google/api``, ``google/rpc``, ``google/longrunning``, ``buf/validate``) are not copied into the
tree: their descriptors are taken out of the installed packages. Generated modules are moved below the package
``oteo_protos``, because ``oteo`` itself is the client's SDK.

``--image FILE`` also writes all descriptors with their comments, for ``buf lint``.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = PROTOS / "oteo_protos"
DEPENDENCIES = (
    "google.api.client_pb2",
    "google.api.field_behavior_pb2",
    "google.api.resource_pb2",
    "google.longrunning.operations_pb2",
    "google.protobuf.empty_pb2",
    "google.protobuf.field_mask_pb2",
    "google.protobuf.struct_pb2",
    "google.rpc.error_details_pb2",
    "google.rpc.status_pb2",
)
VALIDATE = "buf/validate/validate.proto"


def dependencies() -> descriptor_pb2.FileDescriptorSet:
    """Collect the descriptors of all imported protos, each after those that it imports."""
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def add(descriptor: FileDescriptor) -> None:
        if descriptor.name in files:
            return
        for dependency in descriptor.dependencies:
            add(dependency)
        proto = descriptor_pb2.FileDescriptorProto()
        descriptor.CopyToProto(proto)
        files[descriptor.name] = proto

    for name in DEPENDENCIES:
        add(importlib.import_module(name).DESCRIPTOR)
    add(importlib.import_module("google.protobuf.duration_pb2").DESCRIPTOR)
    add(importlib.import_module("google.protobuf.timestamp_pb2").DESCRIPTOR)
    # protovalidate carries validate.proto as the descriptor of another runtime's module.
    rules = importlib.import_module("protovalidate._gen.buf.validate.validate_pb")
    files[VALIDATE] = descriptor_pb2.FileDescriptorProto.FromString(rules._DESC.proto.to_binary())
    return descriptor_pb2.FileDescriptorSet(file=files.values())


def _relocate(text: str) -> str:
    """Move imports of generated modules below ``oteo_protos``."""
    text = re.sub(r"^from oteo\.", "from oteo_protos.", text, flags=re.MULTILINE)
    text = re.sub(r"^import oteo\.", "import oteo_protos.", text, flags=re.MULTILINE)
    text = re.sub(r"^from buf\.validate", "from oteo_protos.buf.validate", text, flags=re.MULTILINE)
    return text


def main() -> int:
    """Run protoc; give its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="also write all descriptors, for buf lint")
    options = parser.parse_args()
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / "oteo").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        imported = out / "imported.binpb"
        imported.write_bytes(dependencies().SerializeToString())
        common = [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--descriptor_set_in={imported}",
            f"-I{PROTOS}",
        ]
        generated = out / "python"
        generated.mkdir()
        plugin = Path(sys.executable).with_name("protoc-gen-mypy_grpc")
        commands = [
            [*common, f"--python_out={generated}", f"--pyi_out={generated}", VALIDATE, *sources],
            [
                *common,
                f"--plugin=protoc-gen-mypy_grpc={plugin}",
                f"--grpc_python_out={generated}",
                f"--mypy_grpc_out={generated}",
                *[source for source in sources if "\nservice " in (PROTOS / source).read_text()],
            ],
        ]
        if options.image:
            commands.append([*common, f"--descriptor_set_out={options.image}", "--include_imports", "--include_source_info", *sources])
        for command in commands:
            status = subprocess.run(command, check=False).returncode
            if status:
                return status
        for old in PACKAGE.iterdir():
            if old.is_dir():
                shutil.rmtree(old)
        for path in sorted(generated.rglob("*.py*")):
            relative = path.relative_to(generated)
            if relative.parts[0] == "oteo":
                relative = Path(*relative.parts[1:])
            target = PACKAGE / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_relocate(path.read_text()))
        for directory in PACKAGE.rglob("*"):
            if directory.is_dir() and directory.name != "__pycache__":
                (directory / "__init__.py").touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
