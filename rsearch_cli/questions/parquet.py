"""Parquet files of JSON rows, read and written without loss.

A column that Arrow represents exactly is an ordinary column. Any other one, such as answers that
are sometimes a string and sometimes a list, is stored as JSON text and marked so in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from rsearch_cli.errors import DataMalformed, first_line
from rsearch_cli.runs.json_text import dump_json, finite_only

PARQUET_MAGIC = b"PAR1"
"""The first bytes of every parquet file."""

_JSON = {b"rsearch": b"json"}


def stream_parquet(file: IO[bytes], origin: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row with its location; fields that are null or NaN are left out.

    Args:
        file: Seekable file, open at its start.
        origin: Name of the file in messages.

    Raises:
        DataMalformed: The file is damaged.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(file)
        kinds = {field.name: field.metadata for field in table.schema_arrow}
        number = 0
        for batch in table.iter_batches():
            columns = [
                _decode(column.to_pylist(), kinds[name])
                for name, column in zip(batch.schema.names, batch.columns, strict=True)
            ]
            for cells in zip(*columns, strict=True):
                number += 1
                fields = dict(zip(batch.schema.names, map(_plain, cells), strict=True))
                yield f"row {number}", {k: v for k, v in fields.items() if v is not None}
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        raise DataMalformed(
            f"{origin}: incomplete or damaged parquet file ({first_line(error)})"
        ) from error


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows of JSON values; fields that a row lacks become null.

    Raises:
        OSError: The file cannot be written.
    """
    import pyarrow
    from pyarrow import parquet

    names = dict.fromkeys(name for row in rows for name in row)
    columns = [_encode([row.get(name) for row in rows]) for name in names]
    fields = [
        pyarrow.field(name, column.type, metadata=metadata)
        for name, (column, metadata) in zip(names, columns, strict=True)
    ]
    arrays = [column for column, _ in columns]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields)), path)


def _encode(values: list[Any]) -> tuple[Any, Mapping[bytes, bytes] | None]:
    """Return an Arrow column that represents the values exactly, and its metadata."""
    import pyarrow

    try:
        column = pyarrow.array(values)
        # Arrow gives all objects the same keys and turns integers into floats.
        if dump_json(column.to_pylist()) == dump_json(values):
            return column, None
    except (pyarrow.ArrowException, OverflowError):
        pass
    texts = [None if value is None else dump_json(value) for value in values]
    return pyarrow.array(texts, type=pyarrow.string()), _JSON


def _decode(values: list[Any], metadata: Mapping[bytes, bytes] | None) -> list[Any]:
    if (metadata or {}).get(b"rsearch") != b"json":
        return values
    return [None if value is None else json.loads(value) for value in values]


def _plain(value: Any) -> Any:
    """Return the JSON form of an Arrow value: dates become text, bytes (images) None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return finite_only(value)
    if value is None or isinstance(value, str | bool | int):
        return value
    return None if isinstance(value, bytes) else str(value)
