"""Which sample goes into which shard, under which name: by the selection and the writer alone."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.export import plan as plan_module
from pixsieve.export import tar
from pixsieve.export.plan import ExportPlan, plan_export, plan_schema, shard_stem
from pixsieve.stages import ImageWriterStage
from pixsieve.testing.rows import NO_COLUMNS, make_parts

if TYPE_CHECKING:
    from pathlib import Path

SCORES = pa.schema([("score", pa.float32()), ("tags", pa.list_(pa.string()))])


def samples(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [
        {
            "original_path": f"{number // 40}.tar",
            "original_key": f"k{number}",
            "byte_size": 1000 + number,
            "caption": None if number % 3 else f"caption {number}",
            "siblings": [("txt", 10, 5), ("json", 900, number)][: number % 3],
            **changes,
        }
        for number in range(count)
    ]


def planned(
    folder: Path,
    rows: list[dict[str, Any]],
    order: list[int] | None = None,
    *,
    added: pa.Schema = NO_COLUMNS,
    per_part: int = 1000,
    **options: Any,
) -> tuple[ExportPlan, list[pa.Table]]:
    parts = make_parts(folder, rows, added=added, per_part=per_part)
    numbers = np.array(range(len(rows)) if order is None else order, np.int64)
    writer = ImageWriterStage(output_dir="out", **options)
    found = plan_export(parts, numbers, writer, added, folder / "plan")
    return found, [pq.read_table(shard.table) for shard in found.shards]


@pytest.mark.parametrize("count", [1, 6, 7, 8, 100])
def test_every_shard_has_its_full_number_but_the_last(tmp_path: Path, count: int):
    found, tables = planned(tmp_path, samples(count), images_per_tar=7)
    sizes = [shard.samples for shard in found.shards]
    assert sizes == [7] * (count // 7) + [count % 7] * (count % 7 > 0)
    assert sizes == [len(table) for table in tables]
    assert [shard.index for shard in found.shards] == list(range(len(sizes)))


def test_samples_come_in_the_order_given_with_all_that_is_known(tmp_path: Path):
    order = np.random.default_rng(0).permutation(100)[:61].tolist()
    rows = samples(100)
    for number, row in enumerate(rows):
        row |= {"score": number / 4, "tags": [f"t{number}"] if number % 2 else None}
    _, tables = planned(tmp_path, rows, order, added=SCORES, images_per_tar=10)
    whole = pa.concat_tables(tables)
    assert whole.schema == plan_schema(SCORES)
    assert whole["key"].to_pylist() == [f"k{number}" for number in order]
    assert whole["score"].to_pylist() == [number / 4 for number in order]
    assert whole["rank"].to_pylist() == list(range(61))
    assert whole["caption"].to_pylist() == [rows[number]["caption"] for number in order]
    assert whole["tags"].to_pylist() == [rows[number]["tags"] for number in order]
    for number, siblings in zip(order, whole["siblings"].to_pylist(), strict=True):
        assert [(s["extension"], s["offset"], s["size"]) for s in siblings] == rows[number][
            "siblings"
        ]


def test_names_are_ids_or_running_numbers_over_all_shards(tmp_path: Path):
    _, tables = planned(tmp_path / "id", samples(20), images_per_tar=6)
    whole = pa.concat_tables(tables)
    assert whole["new_key"] == whole["image_id"]
    assert len(set(whole["new_key"].to_pylist())) == 20
    _, tables = planned(
        tmp_path / "seq",
        samples(20),
        [*range(19, -1, -1)],
        images_per_tar=6,
        member_names="sequential",
    )
    assert pa.concat_tables(tables)["new_key"].to_pylist() == [f"{n:09d}" for n in range(20)]


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9000) | st.sampled_from([9216, 20_000]), min_size=1, max_size=25),
    most=st.integers(10_240, 45_000) | st.sampled_from([10_240, 19_968, 20_480, 30_208]),
)
def test_tars_are_filled_up_to_their_limit_and_never_beyond(
    sizes: list[int], most: int, tmp_path_factory: pytest.TempPathFactory
):
    rows = [
        {"byte_size": size, "siblings": [("txt", 0, size % 700)] if size % 2 else []}
        for size in sizes
    ]
    folder = tmp_path_factory.mktemp("plan")
    _, tables = planned(folder, rows, max_bytes_per_tar=most)
    lengths = [
        [
            tar.member_bytes(row["image_size"])
            + sum(tar.member_bytes(sibling["size"]) for sibling in row["siblings"])
            for row in table.to_pylist()
        ]
        for table in tables
    ]

    def whole(members: list[int]) -> int:
        return sum(members) + tar.trailer(sum(members))

    assert [size for table in lengths for size in table] == [
        tar.member_bytes(size) + (tar.member_bytes(size % 700) if size % 2 else 0) for size in sizes
    ]
    for number, members in enumerate(lengths):
        assert len(members) == 1 or whole(members) <= most
        if number + 1 < len(lengths):  # the next one would not have fitted
            assert whole([*members, lengths[number + 1][0]]) > most


@pytest.mark.parametrize(("bucket", "per_part"), [(1, 3), (10, 7), (25, 1000), (50_000, 1)])
def test_rows_that_are_set_aside_give_the_same_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bucket: int, per_part: int
):
    order = np.random.default_rng(1).permutation(100)[:83].tolist()
    options: dict[str, Any] = {"added": SCORES, "images_per_tar": 10}
    whole, expected = planned(tmp_path / "whole", samples(100), order, **options)
    monkeypatch.setattr(plan_module, "BUCKET_ROWS", bucket)
    held = []
    original = plan_module._Spill.read

    def read(spill: plan_module._Spill) -> pa.Table:
        held.append(len(found := original(spill)))
        return found

    monkeypatch.setattr(plan_module._Spill, "read", read)
    found, tables = planned(tmp_path / "parts", samples(100), order, per_part=per_part, **options)
    assert tables == expected
    assert found.digest == whole.digest
    assert [shard.digest for shard in found.shards] == [shard.digest for shard in whole.shards]
    assert max(held) <= max(bucket, 10)  # at least a shard at a time
    assert (
        sorted(path.suffix for path in (tmp_path / "parts" / "plan").iterdir()) == [".parquet"] * 9
    )


def test_each_index_table_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parts = make_parts(tmp_path, samples(100), per_part=9)
    read: list[str] = []
    original = plan_module.tables.read_table

    def note(path: str, columns: Any = None) -> pa.Table:
        read.append(path.rpartition("/")[2])
        return original(path, columns)

    monkeypatch.setattr(plan_module.tables, "read_table", note)
    writer = ImageWriterStage(output_dir="out")
    plan_export(parts, np.arange(45, dtype=np.int64), writer, NO_COLUMNS, tmp_path / "plan")
    assert [name for name in read if name.startswith("index")] == [
        "index-0.parquet",
        "index-1.parquet",
    ]
    assert len(set(read)) == len(read) == 2 + 6  # the parts without a kept row are not read


CHANGES: dict[str, Any] = {
    "caption": "another",
    "class_name": "cats",
    "sha256": "0" * 64,
    "siblings_sha256": "0" * 64,
    "original_key": "another",
    "original_offset": 77,
    "width": 65,
    "exif_orientation": 6,
    "mode": "L",
    "score": 0.5,
    "tags": ["a", None],
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("member_names", ["id", "sequential"])
def test_the_digest_tells_of_all_that_a_shard_is_made_of(
    tmp_path: Path, name: str, member_names: str
):
    rows = samples(12)
    options: dict[str, Any] = {
        "added": SCORES, "images_per_tar": 4, "member_names": member_names,
    }  # fmt: skip
    before, _ = planned(tmp_path / "1", rows, **options)
    rows[5] = {**rows[5], name: CHANGES[name]}
    after, _ = planned(tmp_path / "2", rows, **options)
    assert after.digest != before.digest
    pairs = zip(before.shards, after.shards, strict=True)
    assert [one.digest == two.digest for one, two in pairs] == [True, False, True]


def test_the_digest_does_not_tell_where_and_when_the_source_lies(tmp_path: Path):
    before, _ = planned(tmp_path / "1", samples(12))
    after, _ = planned(tmp_path / "2", samples(12, image_version="2"), per_part=5)
    assert before.digest == after.digest


@pytest.mark.parametrize(
    "options",
    [
        {"images_per_tar": 5}, {"max_bytes_per_tar": 10_240}, {"image_format": "png"},
        {"member_names": "sequential"}, {"quality": 90}, {"background": "#000000"},
        {"added": SCORES},
    ],
)  # fmt: skip
def test_the_digest_tells_of_the_writers_options(tmp_path: Path, options: dict[str, Any]):
    plain, _ = planned(tmp_path / "1", samples(12))
    assert planned(tmp_path / "2", samples(12), **options)[0].digest != plain.digest
    same, _ = planned(tmp_path / "3", samples(12), prefix="other", verbose=True)
    assert same.digest == plain.digest


@given(
    st.lists(st.none() | st.text(max_size=3), max_size=6),
    st.lists(st.none() | st.text(max_size=3), max_size=6),
)
def test_columns_have_equal_digests_only_if_they_are_equal(
    one: list[str | None], two: list[str | None]
):
    def digest(values: pa.Array) -> bytes:
        return plan_module._content_digest(pa.table({"x": values}))

    left, right = pa.array(one, pa.string()), pa.array(two, pa.string())
    assert (digest(left) == digest(right)) == (one == two)
    padded = pa.array(["some", None, *one, "more"], pa.string()).slice(2, len(one))
    assert digest(padded) == digest(left)  # whatever lies around it in memory
    nested = pa.array([one, None, two], pa.list_(pa.string()))
    turned = pa.array([two, None, one], pa.list_(pa.string()))
    assert (digest(nested) == digest(turned)) == (one == two)


@pytest.mark.parametrize(
    ("kind", "one", "two"),
    [
        (pa.bool_(), False, True),
        (pa.int8(), 0, 1),
        (pa.float16(), np.float16(0), np.float16(1)),
        (pa.float64(), 0.0, 0.1),
        (pa.date32(), dt.date(1970, 1, 1), dt.date(1970, 1, 2)),
        (pa.decimal128(9, 2), decimal.Decimal(0), decimal.Decimal("0.01")),
        (pa.binary(), b"", b"\0"),
        (pa.large_string(), "", "a"),
        (pa.list_(pa.float32()), [], [0.0]),
        (pa.list_(pa.float32(), 2), [0.0, None], [0.0, 1.0]),
        (pa.struct([("a", pa.int8())]), {"a": None}, {"a": 0}),
    ],
    ids=str,
)
def test_values_of_any_type_are_told_apart_by_the_digest(
    kind: pa.DataType, one: object, two: object
):
    def digest(*values: object) -> bytes:
        return plan_module._content_digest(pa.table({"x": pa.array(values, kind)}))

    rows: list[tuple[object, ...]] = [
        (), (one,), (two,), (None,), (one, two), (two, one), (one, one), (one, None), (None, one),
    ]  # fmt: skip
    digests = [digest(*values) for values in rows]
    assert len(set(digests)) == len(rows)
    assert digests == [digest(*values) for values in rows]


def test_files_are_named_by_prefix_split_hash_and_number():
    writer = ImageWriterStage(output_dir="out", prefix="cats")
    assert shard_stem(writer, "0123456789ab", None, 7) == "cats-0123456789ab-000007"
    assert shard_stem(writer, "0123456789ab", "train", 7) == "cats-train-0123456789ab-000007"
    assert shard_stem(writer, "0123456789ab", None, 1_234_567) == "cats-0123456789ab-1234567"


def test_nothing_kept_is_no_shard(tmp_path: Path):
    for options in ({}, {"max_bytes_per_tar": 20_000}):
        found, tables = planned(tmp_path / str(len(options)), samples(3), [], **options)
        assert (found.shards, tables) == ((), [])
