"""A whole run on a mixed corpus: nothing lost, nothing changed, and readable by anybody."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import io
import json
import tarfile
from collections import Counter
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pds
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve import schema
from pixsieve.engine import work
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.local import LocalExecutor
from pixsieve.engine.progress import Quiet
from pixsieve.errors import RunError
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    FilePartitioningStage,
    FilterStage,
    ImageQualityStage,
    ImageReaderStage,
    ImageWriterStage,
)
from pixsieve.testing import corpus as kit
from pixsieve.testing import images

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.engine.result import RunResult

PER_TAR = 8
FILES = kit.corpus_files()


@pytest.fixture(scope="module", params=["files", "tars"])
def made(
    request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunResult]:
    """The corpus, once from loose files and once from tars, exported with all formats kept."""
    folder = tmp_path_factory.mktemp("run") / "out"
    source = corpus / request.param
    pipeline = kit.make_pipeline(source, folder, images_per_tar=PER_TAR, image_format="keep")
    return folder, kit.run_pipeline(pipeline)


def samples(folder: Path) -> list[dict[str, Any]]:
    """Every row of the sidecars with its members, as the standard library reads the tars."""
    found = []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path, mode="r:") as archive:
            members = {m.name: archive.extractfile(m).read() for m in archive}
        rows = pq.read_table(path.with_suffix(".parquet")).to_pylist()
        found += [
            {**row, "data": {name: members.pop(name) for name in row["members"]}} for row in rows
        ]
        assert not members  # each belongs to a sample
    return found


def dropped(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "dropped" / "dropped.parquet").to_pylist()


def stem(row: dict[str, Any]) -> str:
    return str(row["original_key"]).partition(".")[0]


def test_every_sample_is_kept_or_accounted_for(made: tuple[Path, RunResult]):
    folder, result = made
    kept, gone = samples(folder), dropped(folder)
    counts = result.counts
    assert counts.indexed == counts.kept + counts.dropped + counts.failed == len(kept) + len(gone)
    assert Counter(row["status"] for row in gone) == {
        "dropped": counts.dropped, "failed": counts.failed,
    }  # fmt: skip
    keys = Counter(stem(row) for row in (*kept, *gone))
    assert keys == Counter({name.partition(".")[0] for name in FILES})  # all of them, once
    told = Counter({(r.stage, r.status, r.reason): r.count for r in result.reasons})
    assert told == Counter((row["stage"], row["status"], row["reason"]) for row in gone)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["reasons"] == [dataclasses.asdict(reason) for reason in result.reasons]
    assert manifest["counts"] == dataclasses.asdict(counts)
    for row in gone:
        assert isinstance(json.loads(row["evidence"]), dict)
    ids = {row["image_id"] for row in kept}
    assert len(ids) == len(kept)
    assert not ids & {row["image_id"] for row in gone}
    copies = [row for row in gone if row["reason"] == "exact_duplicate"]
    assert copies
    assert {row["duplicate_of"] for row in copies} <= ids


def test_every_byte_of_a_kept_sample_comes_out_as_it_went_in(made: tuple[Path, RunResult]):
    folder, _ = made
    for row in samples(folder):
        extensions = ["jpg", "png", "webp"]
        source = next(FILES[f"{stem(row)}.{e}"] for e in extensions if f"{stem(row)}.{e}" in FILES)
        image, *siblings = row["members"]
        assert row["data"][image] == source
        assert hashlib.sha256(source).hexdigest() == row["sha256"] == row["original_sha256"]
        for name in siblings:
            assert row["data"][name] == FILES[f"{stem(row)}.{name.rpartition('.')[2]}"]
        beside = {name for name in FILES if name.startswith(f"{stem(row)}.")}
        assert len(row["members"]) == len(beside)
        with Image.open(io.BytesIO(source)) as opened:
            assert opened.size == (row["width"], row["height"])


def test_captions_and_json_fields_are_those_of_the_members(made: tuple[Path, RunResult]):
    folder, _ = made
    for row in samples(folder):
        data = {name.rpartition(".")[2]: content for name, content in row["data"].items()}
        document = json.loads(data.get("json", b"{}"))
        assert row["caption"] == (data["txt"].decode() if "txt" in data else None)
        assert row["number"] == document.get("number")
        assert row["source"] == document.get("source")


def test_shards_are_exact_and_named_without_a_gap(made: tuple[Path, RunResult]):
    folder, result = made
    manifest = json.loads((folder / "manifest.json").read_text())
    count = len(result.shards)
    assert list(result.shards) == [f"images-{manifest['hash']}-{n:06d}.tar" for n in range(count)]
    sizes = [entry["samples"] for entry in manifest["shards"]]
    assert sizes == [PER_TAR] * (count - 1) + [result.counts.kept - PER_TAR * (count - 1)]
    assert count > 2
    for entry in manifest["files"]:
        data = (folder / entry["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"])
    listed = {entry["name"] for entry in manifest["files"]}
    tops = {name.partition("/")[0] for name in listed}
    assert tops | {"manifest.json", ".pixsieve"} == {path.name for path in folder.iterdir()}


def test_the_order_is_that_of_the_sidecars_and_the_tables_have_their_schemas(
    made: tuple[Path, RunResult],
):
    folder, _ = made
    added = pa.schema([("number", pa.int64()), ("source", pa.string())])
    for path in folder.glob("images-*.parquet"):
        table = pq.read_table(path)
        assert table.schema.remove_metadata() == pa.schema([*schema.SIDECAR, *added])
        offsets = table["member_offset"].to_pylist()
        assert offsets == sorted(offsets)
    told = pq.read_schema(folder / "dropped" / "dropped.parquet").remove_metadata()
    assert told == schema.DROPPED


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # webdataset leaves its files open
def test_webdataset_reads_the_shards(made: tuple[Path, RunResult]):
    webdataset = pytest.importorskip("webdataset")
    folder, result = made
    name_hash = result.shards[0].split("-")[1]
    urls = f"{folder}/images-{name_hash}-{{000000..{len(result.shards) - 1:06d}}}.tar"
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    gc.collect()
    rows = samples(folder)
    assert [sample["__key__"] for sample in found] == [row["key"] for row in rows]
    for sample, row in zip(found, rows, strict=True):
        parts = {name: data for name, data in sample.items() if not name.startswith("__")}
        assert parts == {name.partition(".")[2]: data for name, data in row["data"].items()}


def test_duckdb_polars_and_pyarrow_read_the_sidecars_by_a_glob(made: tuple[Path, RunResult]):
    folder, result = made
    pattern = f"{folder}/images-*.parquet"
    rows = samples(folder)
    with duckdb.connect() as connection:
        query = "SELECT count(*), sum(member_size), count(caption) FROM read_parquet(?)"
        (found,) = connection.execute(query, [pattern]).fetchall()
    expected = (
        len(rows),
        sum(row["member_size"] for row in rows),
        sum(row["caption"] is not None for row in rows),
    )
    assert found == expected
    table = pds.dataset(sorted(map(str, folder.glob("images-*.parquet")))).to_table()
    assert table["image_id"].to_pylist() == [row["image_id"] for row in rows]
    polars = pytest.importorskip("polars")
    frame = polars.scan_parquet(pattern).select("image_id", "members", "width").collect()
    assert frame["image_id"].to_list() == [row["image_id"] for row in rows]
    assert frame["members"].to_list() == [row["members"] for row in rows]
    assert frame.height == result.counts.kept


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_result_offers_the_images_on_demand(made: tuple[Path, RunResult], size: int):
    folder, result = made
    batches = list(result.batches(size))
    rows = samples(folder)
    assert {len(batch) for batch in batches[:-1]} <= {size}
    assert 0 < len(batches[-1]) <= size
    assert [(image.image_id, image.key, image.data) for batch in batches for image in batch] == [
        (row["image_id"], row["key"], row["data"][row["member_name"]]) for row in rows
    ]


def test_no_image_is_offered_where_none_was_wanted(corpus: Path, tmp_path: Path):
    pipeline = kit.make_pipeline(corpus / "files", tmp_path / "out", remove_image_data=True)
    assert list(kit.run_pipeline(pipeline).batches()) == []


@pytest.mark.parametrize("executor", [InlineExecutor(), LocalExecutor(workers=1)])
def test_the_memory_of_the_largest_process_is_told(
    corpus: Path, tmp_path: Path, executor: InlineExecutor | LocalExecutor
):
    pipeline = kit.make_pipeline(corpus / "files", tmp_path / "out")
    peak = pipeline.run(executor, RunOptions(max_failed=1)).peak_memory
    assert 30e6 < peak < 4e9


def test_a_second_run_does_nothing_and_says_so(corpus: Path, tmp_path: Path):
    pipeline = kit.make_pipeline(corpus / "files", tmp_path / "out")
    first = kit.run_pipeline(pipeline)
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir() if path.is_file()
    }
    again = kit.run_pipeline(pipeline)
    assert (first.did_nothing, again.did_nothing) == (False, True)
    assert (again.decoded, again.counts, again.reasons) == (0, first.counts, first.reasons)
    assert again.shards == first.shards
    assert {path: path.stat().st_mtime_ns for path in before} == before


class Heard(Quiet):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, step: str, total: int | None, unit: str) -> None:  # noqa: ARG002
        self.lines.append(step)

    def log(self, message: str) -> None:
        self.lines.append(message)


def test_what_is_odd_about_a_threshold_is_told_before_any_work(corpus: Path, tmp_path: Path):
    pipeline = Pipeline().add_stage(ImageReaderStage(str(corpus / "files")))
    pipeline.add_stage(ImageQualityStage()).add_stage(FilterStage("brightness > 100"))
    pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / "out")))
    heard = Heard()
    with pytest.raises(RunError, match="nothing is left"):
        pipeline.run(InlineExecutor(), RunOptions(progress=heard, max_failed=1))
    assert "brightness with 100, but its scale is 0 to 1" in heard.lines[0]
    assert heard.lines[1] == "index"


def test_names_can_be_numbers_over_the_whole_export(corpus: Path, tmp_path: Path):
    folder = tmp_path / "out"
    kit.run_pipeline(kit.make_pipeline(corpus / "files", folder, member_names="sequential"))
    rows = samples(folder)
    assert [row["key"] for row in rows] == [f"{number:09d}" for number in range(len(rows))]
    assert all(name.startswith(row["key"]) for row in rows for name in row["members"])


def test_no_tar_outgrows_its_limit(corpus: Path, tmp_path: Path):
    folder, most = tmp_path / "out", 40_000
    pipeline = kit.make_pipeline(
        corpus / "files", folder, max_bytes_per_tar=most, image_format="keep"
    )
    kit.run_pipeline(pipeline)
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.tar")}
    assert len(sizes) > 3
    assert all(
        size <= most or pq.read_metadata(folder / name.replace(".tar", ".parquet")).num_rows == 1
        for name, size in sizes.items()
    )
    assert max(sizes.values()) > most / 2


def test_everything_becomes_one_format_where_that_is_asked(corpus: Path, tmp_path: Path):
    folder = tmp_path / "out"
    kit.run_pipeline(kit.make_pipeline(corpus / "files", folder, image_format="webp", quality=60))
    rows = samples(folder)
    assert {row["format"] for row in rows} == {"webp"}
    assert {row["original_format"] for row in rows} == {"jpeg", "png", "webp"}
    for row in rows:
        data = row["data"][row["member_name"]]
        assert hashlib.sha256(data).hexdigest() == row["sha256"]
        assert (row["encoding"] == "copy") == (row["original_format"] == "webp")
        with Image.open(io.BytesIO(data)) as opened:
            assert (opened.format, opened.size) == ("WEBP", (row["width"], row["height"]))


def test_an_unfinished_run_with_another_caption_does_not_leave_its_sidecars(tmp_path: Path):
    """Names and images are the same; the sidecars are not."""

    class Interrupted(BaseException):
        pass

    class Stopping:
        def start(self, step: str, total: int | None, unit: str) -> None:
            del total, unit
            if step == "commit":
                raise Interrupted

        def advance(self, count: int) -> None: ...

        def finish(self, facts: object) -> None: ...

        def log(self, message: str) -> None: ...

    def pipeline(field: str) -> Pipeline:
        reader = ImageReaderStage(str(tmp_path / "source"), caption_field=field)
        writer = ImageWriterStage(output_dir=str(tmp_path / "out"), member_names="sequential")
        return Pipeline().add_stage(reader).add_stage(writer)

    files = {"a.jpg": images.photo(), "a.json": b'{"x": "one", "y": "two"}'}
    kit.write_files(tmp_path / "source", files)
    with pytest.raises(Interrupted):
        pipeline("x").run(InlineExecutor(), RunOptions(progress=Stopping()))
    pipeline("y").run(InlineExecutor())
    assert [row["caption"] for row in samples(tmp_path / "out")] == ["two"]
    assert len(list((tmp_path / "out").glob("*.tar"))) == 1


def test_a_script_for_curator_runs_as_it_is(corpus: Path, tmp_path: Path):
    pipeline = Pipeline(name="image_curation")
    pipeline.add_stage(
        FilePartitioningStage(
            file_paths=str(corpus / "tars"), files_per_partition=1, file_extensions=[".tar"]
        )
    )
    pipeline.add_stage(ImageReaderStage())
    pipeline.add_stage(FilterStage("width >= 100"))
    pipeline.add_stage(
        ImageWriterStage(
            output_dir=str(tmp_path / "out"), images_per_tar=10, remove_image_data=True,
            verbose=True, deterministic_name=True,
        )
    )  # fmt: skip
    result = pipeline.run(InlineExecutor(), RunOptions(max_failed=0.5))
    rows = samples(tmp_path / "out")
    assert len(rows) == result.counts.kept > 20
    assert all(row["member_name"].endswith(".jpg") for row in rows)
    assert all(row["width"] >= 100 for row in rows)


def test_a_random_name_is_kept_by_the_next_run(corpus: Path, tmp_path: Path):
    names = []
    for folder in ("1", "1", "2"):
        pipeline = kit.make_pipeline(corpus / "files", tmp_path / folder, deterministic_name=False)
        names.append(kit.run_pipeline(pipeline).shards[0])
    assert names[0] == names[1] != names[2]


@pytest.mark.parametrize(
    ("sizes", "parts"),
    [
        ([], []),
        ([1] * 1000, [(0, 1000)]),
        ([1] * 1001, [(0, 1000), (1000, 1001)]),
        ([work.PART_BYTES] * 65, [(0, 64), (64, 65)]),  # no fewer than that, however large
        ([work.PART_BYTES // 128] * 150, [(0, 128), (128, 150)]),
        ([0] * 2500, [(0, 1000), (1000, 2000), (2000, 2500)]),
    ],
)
def test_a_source_is_measured_in_parts_of_bounded_size(
    sizes: list[int], parts: list[tuple[int, int]]
):
    found = work._parts(pa.table({"image_size": pa.array(sizes, pa.int64())}))
    assert [(start, stop) for start, stop in found] == parts
