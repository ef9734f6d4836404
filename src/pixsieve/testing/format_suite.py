"""What every other format must do: subclass :class:`FormatTests` in a test module.

::

    class TestMyFormat(FormatTests):
        format = MyFormat()

        def read(self, folder, split): ...  # with the format's own library
"""
# ruff: noqa: S101 - these are tests

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import random
import signal
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixsieve.errors import StorageError
from pixsieve.export.contents import Contents
from pixsieve.export.dataset import MANIFEST
from pixsieve.export.files import FileRecord, record
from pixsieve.export.finished import Dataset, Shard
from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage, SplitStage
from pixsieve.storage import tables
from pixsieve.storage.portable import convert, portable
from pixsieve.testing import corpus as kit
from pixsieve.testing import images
from pixsieve.testing.faults import tree

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from pixsieve.export.formats.base import Format

_PROGRAM = """
import base64, os, pickle, resource, signal, sys
from pathlib import Path

source, warm, folder, kind, limit = sys.argv[2:]
from pixsieve.testing.format_suite import dataset_of

made = pickle.loads(base64.b64decode(sys.argv[1]))
dataset = dataset_of(Path(source))
made.write_shard(dataset.about, dataset.shards[-1], Path(warm))  # its libraries are loaded now
count = 0

def watch(event, arguments):
    global count
    if event not in ("open", "os.rename", "os.mkdir") or not str(arguments[0]).startswith(folder):
        return
    count += 1
    if count == int(limit):
        os.kill(os.getpid(), signal.SIGKILL)

if kind == "calls":
    sys.addaudithook(watch)
else:
    if kind == "killed":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
try:
    for shard in dataset.shards:
        made.write_shard(dataset.about, shard, Path(folder))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""
_WITH_SPLITS = pytest.mark.parametrize("dataset", [True], indirect=True, ids=["splits"])


class Found(NamedTuple):
    """A sample as a format's reader gives it: its image's bytes, and the other columns."""

    image: bytes
    row: Mapping[str, Any]


class ReadingTests:
    """A reader gives all that is in the sidecars, and each image's bytes."""

    format: ClassVar[Format]

    def read(self, folder: Path, split: str | None) -> Iterable[Found]:
        """Read one split back with the format's own library, in the order of the export."""
        raise NotImplementedError

    def held(self, name: str, value: object, field: pa.Field) -> object:  # noqa: ARG002
        """Return what a reader gives for a column's value."""
        return value

    @pytest.fixture(params=[False, True], ids=["whole", "splits"])
    def dataset(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Dataset:
        """Return an export whose sidecars have columns of every kind, and nulls."""
        folder = tmp_path_factory.getbasetemp() / f"formats-{request.param}"
        return make_dataset(folder, splits=request.param)

    def write(self, dataset: Dataset, folder: Path, *, backwards: bool = False) -> list[str]:
        """Write all of the format; return the names of its files."""
        folder.mkdir(exist_ok=True)
        shards = dataset.shards[::-1] if backwards else dataset.shards
        found = {
            shard.number: self.format.write_shard(dataset.about, shard, folder) for shard in shards
        }
        written = [found[shard.number] for shard in dataset.shards]
        more = self.format.finish(dataset, written, folder)
        return [*(name for names in written for name in names), *more]

    def test_it_is_read_back_as_the_sidecars_say(self, dataset: Dataset, tmp_path: Path) -> None:
        self.write(dataset, tmp_path / "made")
        for split, shards in dataset.splits.items():
            expected = [(row, data) for shard in shards for row, data in dataset.images(shard)]
            found = list(self.read(tmp_path / "made", split))
            assert len(found) == len(expected)
            for got, (row, data) in zip(found, expected, strict=True):
                assert hashlib.sha256(got.image).hexdigest() == row["sha256"]
                assert got.image == data
                for field in dataset.columns:
                    name = "image_" if field.name == "image" else field.name
                    value = self.held(name, row[field.name], field)
                    assert repr(got.row[name]) == repr(value), name


class FormatTests(ReadingTests):
    """Properties that the rest of pixsieve relies on."""

    passing: ClassVar[tuple[str, ...]] = ()
    """Folders whose files differ from run to run, as the format wants it."""

    def steady(self, folder: Path) -> dict[str, str]:
        """Return the digests of the files that are the same in each run."""
        found = tree(folder)
        return {name: each for name, each in found.items() if not name.startswith(self.passing)}

    def test_its_library_is_there(self) -> None:
        self.format.check()

    def test_it_says_which_files_it_wrote(self, dataset: Dataset, tmp_path: Path) -> None:
        names = self.write(dataset, tmp_path / "made")
        assert sorted(names) == sorted(tree(tmp_path / "made"))
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
        listed = {name for name in names if self.format.is_listed(name)}
        assert listed
        assert not any(name.startswith(self.passing) for name in listed)

    def test_it_is_the_same_in_every_run(self, dataset: Dataset, tmp_path: Path) -> None:
        self.write(dataset, tmp_path / "one")
        self.write(dataset, tmp_path / "two", backwards=True)
        assert self.steady(tmp_path / "one") == self.steady(tmp_path / "two")

    def test_it_can_be_written_over_what_stands(self, dataset: Dataset, tmp_path: Path) -> None:
        self.write(dataset, tmp_path / "made")
        before = self.steady(tmp_path / "made")
        names = self.write(dataset, tmp_path / "made")
        assert self.steady(tmp_path / "made") == before
        assert sorted(names) == sorted(tree(tmp_path / "made"))

    @_WITH_SPLITS
    @pytest.mark.parametrize("limit", [1, 2, 4, 8])
    def test_a_kill_between_two_calls_leaves_nothing_half(
        self, dataset: Dataset, tmp_path: Path, limit: int
    ) -> None:
        self.check_what_stands_after(dataset, tmp_path, "calls", limit)

    @_WITH_SPLITS
    @pytest.mark.parametrize("limit", [1500, 20_000])
    def test_a_kill_amid_a_write_leaves_nothing_half(
        self, dataset: Dataset, tmp_path: Path, limit: int
    ) -> None:
        self.check_what_stands_after(dataset, tmp_path, "killed", limit)

    @_WITH_SPLITS
    def test_a_failing_write_is_an_error_and_leaves_nothing(
        self, dataset: Dataset, tmp_path: Path
    ) -> None:
        said = self.check_what_stands_after(dataset, tmp_path, "failing", 1500)
        assert said.startswith(StorageError.__name__), said
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]

    def check_what_stands_after(
        self, dataset: Dataset, tmp_path: Path, kind: str, limit: int
    ) -> str:
        """Write in a process that comes to an end, compare all final names; return what it said."""
        for name in ("whole", "warm", "cut"):
            (tmp_path / name).mkdir()
        self.write(dataset, tmp_path / "whole")
        whole = tree(tmp_path / "whole")
        made = base64.b64encode(pickle.dumps(self.format)).decode()
        folders = [str(dataset.folder), str(tmp_path / "warm"), str(tmp_path / "cut")]
        done = subprocess.run(  # noqa: S603  # this very program
            [sys.executable, "-c", _PROGRAM, made, *folders, kind, str(limit)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        signals = {"calls": signal.SIGKILL, "killed": signal.SIGXFSZ}
        assert done.returncode in (0, 1, -signals.get(kind, 0)), done.stderr
        if kind == "killed":
            assert done.returncode != 0
        for name, digest in tree(tmp_path / "cut").items():
            if not any(part.startswith(".") for part in name.split("/")):
                assert digest == whole[name], name
        for left in (tmp_path / "cut").glob(".*"):
            assert left.name.endswith(".tmp")  # by which the next run finds it
        self.write(dataset, tmp_path / "cut")
        found = {
            name: each
            for name, each in self.steady(tmp_path / "cut").items()
            if not name.startswith(".")
        }
        assert found == self.steady(tmp_path / "whole")
        return done.stderr.strip().rpartition("\n")[2]


def make_dataset(folder: Path, *, splits: bool, count: int = 14) -> Dataset:
    """Export made photographs, unless that was done; sidecars get columns of every kind."""
    if (folder / "out" / MANIFEST).exists():
        return dataset_of(folder / "out")
    for number in range(count):
        place = folder / "in" / ("", "cats", "odd [class] %1", "__names")[number % 4]
        place.mkdir(parents=True, exist_ok=True)
        kind, extension = ("PNG", "png") if number % 5 == 1 else ("JPEG", "jpg")
        data = images.photo(number, 128 + number, 96, kind)
        (place / f"{number:03d}.{extension}").write_bytes(data)
        if number % 3:
            (place / f"{number:03d}.txt").write_text(f" a caption, numéro {number}\n")
        (place / f"{number:03d}.json").write_text(json.dumps({"image": f"i{number}", "n": number}))
    fields = {"image": "string", "n": "int64"}
    pipeline = Pipeline("formats").add_stage(
        ImageReaderStage(str(folder / "in"), json_fields=fields)
    )
    if splits:
        pipeline.add_stage(SplitStage({"train": 0.6, "val-2": 0.4}, exact=True))
    writer = ImageWriterStage(
        output_dir=str(folder / "out"), images_per_tar=4, image_format="keep", indexes=()
    )
    kit.run_pipeline(pipeline.add_stage(writer))
    for path in sorted((folder / "out").glob("*.parquet")):
        _widen(path)
    return dataset_of(folder / "out")


def _widen(path: Path) -> None:
    """Add columns of every kind to a sidecar, some values of which are null."""
    table = pq.read_table(path)
    numbers = table["n"].to_pylist()

    def some(values: Iterable[object]) -> list[object]:
        return [None if n % 4 == 2 else value for n, value in zip(numbers, values, strict=True)]  # noqa: PLR2004

    n = numbers
    added = {
        "score": pa.array(some(i / 7 for i in n), pa.float32()),
        "ratio": pa.array([float("nan") if i == 3 else i / 7 for i in n], pa.float64()),  # noqa: PLR2004
        "flag": pa.array(some(i % 2 == 0 for i in n), pa.bool_()),
        "small": pa.array(some(-i for i in n), pa.int8()),
        "large": pa.array([2**62 + i for i in n], pa.int64()),
        "hash": pa.array(some(bytes([i]) * 8 for i in n), pa.binary(8)),
        "half": pa.array(some([i / 8, 0.5, -1.0] for i in n), pa.list_(pa.float16(), 3)),
        "vector": pa.array(some([i / 3] * 4 for i in n), pa.list_(pa.float32(), 4)),
        "tags": pa.array(some(["ä"] * (i % 3) for i in n), pa.list_(pa.string())),
        "boxes": pa.array([list(range(-1, i % 3)) for i in n], pa.list_(pa.int32())),
        "nothing": pa.nulls(len(n), pa.string()),
        "long": pa.array(some(_prose(i) for i in n), pa.string()),
    }
    required = {"ratio", "large", "boxes"}
    for name, values in added.items():
        field = portable(pa.field(name, values.type, nullable=name not in required))
        table = table.append_column(field, convert(pa.chunked_array([values]), field.type))
    path.write_bytes(tables.table_bytes(table, tables.DATASET))


def _prose(seed: int) -> str:
    """Return enough text that formats find it worth compressing: 20 KB."""
    words = [f"word{number:02d}" for number in range(100)]
    return " ".join(random.Random(seed).choices(words, k=3000))  # noqa: S311


def dataset_of(folder: Path) -> Dataset:
    """Return a finished export as it is described by its manifest and sidecars."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    files = {each["name"]: FileRecord(**each) for each in manifest["files"]}
    entries = manifest["shards"]
    splits = Counter(entry["split"] for entry in entries)
    seen: Counter[str | None] = Counter()
    shards = []
    for number, entry in enumerate(entries):
        split = entry["split"]
        shards.append(
            Shard(
                tar=files[entry["tar"]],
                sidecar=record(folder, entry["sidecar"]),
                split=split,
                bucket=entry["bucket"],
                samples=entry["samples"],
                number=number,
                split_number=seen[split],
                split_shards=splits[split],
            )
        )
        seen[split] += 1
    first = tables.schema_of(str(folder / entries[0]["sidecar"]))
    members: Counter[str] = Counter()
    for shard in shards:
        for names in tables.read_table(str(folder / shard.sidecar.name), ["members"])["members"]:
            members.update(str(name).rpartition(".")[2] for name in names)
    pictures = {name: each for name, each in members.items() if name not in ("txt", "json")}
    samples = sum(shard.samples for shard in shards)
    return Dataset(
        folder=folder,
        name=manifest["name"],
        prefix="images",
        hash=manifest["hash"],
        plan_sha256=manifest["plan_sha256"],
        samples=samples,
        columns=first,
        contents=Contents(samples=samples, images=pictures, members={}),
        counts=manifest["counts"],
        reasons=manifest["reasons"],
        inputs=manifest["inputs"],
        recipe="",
        shards=tuple(shards),
    )
