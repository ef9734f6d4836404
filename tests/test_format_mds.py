"""MDS, read by its library and by a parser that shares nothing with either."""

from __future__ import annotations

import itertools
import json
import struct

import numpy as np
import pytest

from pixsieve.errors import MissingExtraError
from pixsieve.export.formats import folder as folder_module
from pixsieve.export.formats import mds
from pixsieve.export.formats.mds import MdsFormat
from pixsieve.storage.portable import original
from pixsieve.testing.format_suite import FormatTests, Found, ReadingTests


def test_without_its_library_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(folder_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'pixsieve\[mds\]'"):
        MdsFormat().check()


def parse(data):
    """Yield the samples of a shard."""
    (count,) = struct.unpack_from("<I", data)
    offsets = struct.unpack_from(f"<{count + 1}I", data, 4)
    config = json.loads(data[4 * (count + 2) : offsets[0]])
    for start, stop in itertools.pairwise(offsets):
        unknown = config["column_sizes"].count(None)
        sizes = iter(struct.unpack_from(f"<{unknown}I", data, start))
        at, row = start + 4 * unknown, {}
        for name, encoding, size in zip(
            config["column_names"], config["column_encodings"], config["column_sizes"], strict=True
        ):
            value = data[at : at + (next(sizes) if size is None else size)]
            at += len(value)
            row[name] = decoded(encoding, value)
        assert at == stop
        yield row


def decoded(encoding, value):
    if encoding == "bytes":
        return value
    if encoding == "str":
        return value.decode()
    if encoding == "json":
        return json.loads(value)
    if encoding == "int":
        return int.from_bytes(value, "little", signed=True)
    if encoding.startswith("ndarray"):
        _, kind, length = encoding.split(":")
        numbers = np.frombuffer(value, kind)
        assert len(numbers) == int(length)
        return numbers.tolist()
    return np.frombuffer(value, encoding)[0].item()


class Held(ReadingTests):
    format = MdsFormat()

    def held(self, name, value, field):
        if value is None and name in ("vector", "half"):
            return [float("nan")] * original(field).type.list_size
        return b"" if value is None and name == "hash" else value


@pytest.mark.loaders
class TestMds(Held, FormatTests):
    def read(self, folder, split):
        top = folder / (split or "")
        for each in json.loads((top / "index.json").read_bytes())["shards"]:
            for row in parse((top / each["raw_data"]["basename"]).read_bytes()):
                yield Found(row.pop("image"), row)

    def test_index_and_shards_are_as_its_writer_makes_them(self, dataset, tmp_path):
        from streaming import MDSWriter  # noqa: PLC0415

        self.write(dataset, tmp_path / "made")
        split = dataset.shards[0].split or ""
        mine = json.loads((tmp_path / "made" / split / "index.json").read_bytes())
        rows = next(rows for rows in [list(self.read(tmp_path / "made", split))])
        first = mine["shards"][0]
        columns = dict(zip(first["column_names"], first["column_encodings"], strict=True))
        arrays = {
            name: each.split(":")[1] for name, each in columns.items() if each.startswith("ndarray")
        }
        with MDSWriter(columns=columns, out=str(tmp_path / "theirs"), size_limit=None) as writer:
            for row in rows[: first["samples"]]:
                known = {name: np.array(row.row[name], kind) for name, kind in arrays.items()}
                writer.write({**row.row, **known, "image": row.image})
        theirs = json.loads((tmp_path / "theirs" / "index.json").read_bytes())
        assert theirs["shards"] == [first]
        name = first["raw_data"]["basename"]
        whole = (tmp_path / "theirs" / name).read_bytes()
        assert whole == (tmp_path / "made" / split / name).read_bytes()

    def test_a_large_shard_is_cut(self, dataset, tmp_path, monkeypatch):
        monkeypatch.setattr(mds, "PIECE", 5000)
        self.test_it_is_read_back_as_the_sidecars_say(dataset, tmp_path)
        assert list((tmp_path / "made").rglob("shard.*.1.mds"))


@pytest.mark.loaders
class TestStreaming(Held):
    def read(self, folder, split):
        streaming = pytest.importorskip("streaming")
        streaming.base.util.clean_stale_shared_memory()
        loaded = streaming.StreamingDataset(
            local=str(folder), split=split, shuffle=False, batch_size=1
        )
        for each in loaded:
            row = {
                name: value.tolist() if isinstance(value, np.ndarray | np.generic) else value
                for name, value in each.items()
            }
            yield Found(row.pop("image"), row)
