"""Arrays of any lengths in one file, which is mapped into memory to be read.

What tasks of a stage leave for one another: of a file larger than memory, only those pages are read
that are looked at. The format is Arrow IPC with one row of lists, so that types and names are kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pixsieve.errors import StorageError
from pixsieve.storage import LocalStorage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def write(path: str, arrays: Mapping[str, NDArray[np.generic] | pa.Array]) -> None:
    """Write arrays of numbers, (n,) or (n, d) with d >= 1, or Arrow arrays; whole or not at all."""
    columns = {name: _listed(_as_arrow(values)) for name, values in arrays.items()}
    schema = pa.schema([(name, column.type) for name, column in columns.items()])
    batch = pa.record_batch(list(columns.values()), schema=schema)
    with (
        LocalStorage().create(path, durable=False) as sink,
        pa.ipc.new_file(pa.PythonFile(sink, "w"), schema) as writer,
    ):
        writer.write_batch(batch)


def read(path: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of numbers in a file, read only, without reading them yet.

    Raises:
        StorageError: the file is missing or damaged.
    """
    arrays = read_arrow(path)
    return {name: _as_numpy(each) for name, each in arrays.items() if not _is_text(each.type)}


def read_arrow(path: str) -> dict[str, pa.Array]:
    """Return the arrays in a file as Arrow has them; as above."""
    try:
        batch = pa.ipc.open_file(pa.memory_map(path)).get_batch(0)
    except (OSError, pa.ArrowException) as error:
        msg = f"cannot read the arrays {path}: {error}"
        raise StorageError(msg) from error
    return {name: batch.column(name).values for name in batch.schema.names}


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind))


def _listed(values: pa.Array) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array([0, len(values)], pa.int64()), values)


def _as_arrow(values: NDArray[np.generic] | pa.Array) -> pa.Array:
    if isinstance(values, pa.Array):
        return values
    if values.ndim == 1:
        return pa.array(values)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _as_numpy(values: pa.Array) -> NDArray[Any]:
    if pa.types.is_fixed_size_list(values.type):
        flat: NDArray[Any] = values.values.to_numpy()
        return flat.reshape(len(values), values.type.list_size)
    found: NDArray[Any] = values.to_numpy(zero_copy_only=not pa.types.is_boolean(values.type))
    return found
