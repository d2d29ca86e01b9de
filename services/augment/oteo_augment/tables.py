"""Rows of a dataclass as an Arrow table: what workers answer, and what checkpoints keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa


def pack(rows: Sequence[object], schema: pa.Schema) -> bytes:
    """Give rows, whose attributes a schema names, as an Arrow stream, compressed."""
    batch = pa.RecordBatch.from_arrays(
        [pa.array([getattr(row, name) for row in rows], kind) for name, kind in zip(schema.names, schema.types, strict=True)],
        schema=schema,
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def unpack(data: bytes, schema: pa.Schema) -> Iterator[dict[str, Any]]:
    """Give what `pack` packed, row by row."""
    table = pa.ipc.open_stream(data).read_all()
    for row in zip(*(table.column(name).to_pylist() for name in schema.names), strict=True):
        yield dict(zip(schema.names, row, strict=True))
