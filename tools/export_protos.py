"""Write the contract as .proto files, together with those that it imports, for compilers of other languages: ``export_protos.py FOLDER``."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import build_protos
from proto_text import file_text

VALIDATE_HEAD = """\
// Written by tools/export_protos.py from the descriptor in the package protovalidate: rules that Oteo's requests are checked against.
// Copyright 2023-2026 Buf Technologies, Inc. Licensed under the Apache License, Version 2.0. The definitions of the standard rules
// in CEL and the comments are left out.
"""


def _text(name: str) -> str:
    """Give the text of an imported proto out of the package that has its generated code.

    Raises
    ------
    FileNotFoundError
        The package carries no text of it.
    """
    module = importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2")
    path = Path(str(module.__file__)).with_name(Path(name).name)
    # One file lies there under another name than the one that others import it by.
    other = path.with_name(f"{path.stem}_proto.proto")
    return (path if path.exists() else other).read_text()


def export(folder: Path) -> None:
    """Write the contract and what it imports as .proto files below a folder.

    ``google/protobuf/*.proto`` are not among them: each compiler brings its own.
    """
    files = {
        str(path.relative_to(build_protos.PROTOS)): path.read_text() for path in sorted((build_protos.PROTOS / "oteo").rglob("*.proto"))
    }
    for file in build_protos.dependencies().file:
        if file.name == build_protos.VALIDATE:
            files[file.name] = VALIDATE_HEAD + file_text(file)
        elif not file.name.startswith("google/protobuf/"):
            files[file.name] = _text(file.name)
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def main() -> int:
    """Write the files; give the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to; files of the same names are replaced")
    export(parser.parse_args().folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
