"""Which sample goes into which shard, under which name: by the selection and the writer alone."""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.errors import PlanError, RunError
from pixsieve.export import plan as plan_module
from pixsieve.export import tar
from pixsieve.export.plan import ExportPlan, Groups, plan_export, plan_schema, shard_stem
from pixsieve.stages import ImageWriterStage
from pixsieve.testing.rows import NO_COLUMNS, make_parts

if TYPE_CHECKING:
    from collections.abc import Iterable
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
    splits: Groups | None = None,
    buckets: Groups | None = None,
    more: pa.Table | None = None,
    **options: Any,
) -> tuple[ExportPlan, list[pa.Table]]:
    parts = make_parts(folder, rows, added=added, per_part=per_part)
    numbers = np.array(range(len(rows)) if order is None else order, np.int64)
    writer = ImageWriterStage(output_dir="out", **options)
    extra = None
    if more is not None:
        added = pa.schema([*added, *more.schema])
        ends = itertools.accumulate(part.rows for part in parts)
        extra = (
            more.slice(end - part.rows, part.rows) for part, end in zip(parts, ends, strict=True)
        )
    found = plan_export(
        parts, numbers, writer, added, folder / "plan",
        splits=splits, buckets=buckets, extra=extra,
    )  # fmt: skip
    return found, [pq.read_table(shard.table) for shard in found.shards]


def groups(names: str, codes: Iterable[int]) -> Groups:
    return Groups(names=tuple(names.split()), codes=np.fromiter(codes, np.int16))


def stems(found: ExportPlan) -> list[str]:
    writer = ImageWriterStage(output_dir="out")
    return [shard_stem(writer, "0", s.split, s.index, s.bucket) for s in found.shards]


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
    options: dict[str, Any] = {
        "added": SCORES, "images_per_tar": 10,
        "splits": groups("val train", (number % 7 > 0 for number in range(100))),
        "more": pa.table({"cluster": np.arange(100)}),
    }  # fmt: skip
    whole, expected = planned(tmp_path / "whole", samples(100), order, **options)
    monkeypatch.setattr(plan_module, "HELD_ROWS", bucket)
    held = []
    original = plan_module._Heap.read

    def read(heap: plan_module._Heap) -> pa.Table:
        held.append(len(found := original(heap)))
        return found

    monkeypatch.setattr(plan_module._Heap, "read", read)
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
        {"added": SCORES}, {"shards_multiple_of": 2},
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
    both = shard_stem(writer, "0123456789ab", "train", 7, "1152x896")
    assert both == "cats-train-1152x896-0123456789ab-000007"
    assert shard_stem(writer, "0123456789ab", None, 7, "9x8") == "cats-9x8-0123456789ab-000007"


# -- splits and buckets -------------------------------------------------------------------------

_codes = st.lists(
    st.tuples(st.booleans(), st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=40
)


@settings(max_examples=60, deadline=None)
@given(rows=_codes, seed=st.integers(0, 9), per_tar=st.integers(1, 6))
def test_a_shard_has_one_split_and_one_bucket_and_all_come_in_turn(
    rows: list[tuple[bool, int, int]],
    seed: int,
    per_tar: int,
    tmp_path_factory: pytest.TempPathFactory,
):
    kept = np.flatnonzero([row[0] for row in rows])
    order = np.random.default_rng(seed).permutation(kept).tolist()
    splits = groups("val train test", (row[1] for row in rows))
    buckets = groups("64x128 128x128 1024x64", (row[2] for row in rows))
    found, tables = planned(
        tmp_path_factory.mktemp("plan"), samples(len(rows)), order,
        splits=splits, buckets=buckets, images_per_tar=per_tar, member_names="sequential",
    )  # fmt: skip

    def named(of: Groups, code: int) -> str | None:
        return None if code < 0 else of.names[code]

    expected = sorted(order, key=lambda number: rows[number][1:])  # stable: in order within each
    exported = [row for table in tables for row in table.to_pylist()]
    assert [row["key"] for row in exported] == [f"k{number}" for number in expected]
    assert [(row["split"], row["bucket"]) for row in exported] == [
        (named(splits, rows[number][1]), named(buckets, rows[number][2])) for number in expected
    ]
    assert [row["new_key"] for row in exported] == [f"{n:09d}" for n in range(len(order))]
    for (split, bucket), of_group in itertools.groupby(
        zip(found.shards, tables, strict=True), lambda pair: (pair[0].split, pair[0].bucket)
    ):
        together = list(of_group)
        assert [shard.index for shard, _ in together] == list(range(len(together)))
        for shard, table in together:
            assert shard.samples == len(table) > 0
            assert table["split"].to_pylist() == [split] * len(table)
            assert table["bucket"].to_pylist() == [bucket] * len(table)
            assert len(table) == per_tar or shard is together[-1][0]
    assert len(set(stems(found))) == len(found.shards)


def test_splits_come_in_the_order_of_their_names_and_every_one_is_numbered_from_0(tmp_path: Path):
    splits = groups("val train", [1, 0, 1, 1, 0])
    found, tables = planned(tmp_path, samples(5), splits=splits, images_per_tar=2)
    assert stems(found) == [
        "images-val-0-000000", "images-train-0-000000", "images-train-0-000001",
    ]  # fmt: skip
    assert [table["key"].to_pylist() for table in tables] == [["k1", "k4"], ["k0", "k2"], ["k3"]]


def test_bytes_are_counted_for_each_group(tmp_path: Path):
    rows = samples(8, byte_size=4000, siblings=[])
    splits = groups("a b", [0, 0, 0, 1, 1, 1, 1, 0])
    found, _ = planned(tmp_path, rows, splits=splits, max_bytes_per_tar=20_480)
    assert [(shard.split, shard.index, shard.samples) for shard in found.shards] == [
        ("a", 0, 4), ("b", 0, 4),
    ]  # fmt: skip
    found, _ = planned(tmp_path / "2", rows, splits=splits, max_bytes_per_tar=10_240)
    assert [(s.split, s.index, s.samples) for s in found.shards] == [
        ("a", 0, 2), ("a", 1, 2), ("b", 0, 2), ("b", 1, 2),
    ]  # fmt: skip


def test_the_digest_tells_of_splits_and_buckets(tmp_path: Path):
    digests = set()
    for number, names in enumerate(({}, {"splits": "a"}, {"splits": "b"}, {"buckets": "a"})):
        of = {kind: groups(name, [0] * 6) for kind, name in names.items()}
        digests.add(planned(tmp_path / str(number), samples(6), **of)[0].digest)
    assert len(digests) == 4


def test_columns_that_selection_adds_stand_behind_the_others(tmp_path: Path):
    cluster = pa.field("cluster", pa.int32(), metadata={"source": "k-means"})
    more = pa.table(
        [pa.array([None if n % 5 == 0 else n for n in range(100)], pa.int32())],
        schema=pa.schema([cluster]),
    )
    order = [99, 3, 55, 4, 40]
    found, (table,) = planned(tmp_path, samples(100), order, added=SCORES, per_part=9, more=more)
    assert table["cluster"].to_pylist() == [99, 3, None, 4, None]
    assert table.schema.names[-3:] == ["score", "tags", "cluster"]
    assert table.schema.field("cluster").metadata == {b"source": b"k-means"}
    changed = more.set_column(0, cluster, pa.array([7] * 100, pa.int32()))
    again, _ = planned(tmp_path / "2", samples(100), order, added=SCORES, more=changed)
    assert again.digest != found.digest


@pytest.mark.parametrize(
    ("splits", "buckets"),
    [(["a-b", "a"], ["c", "b-c"]), (["a", None], [None, "a"]), (["a-b", "a"], [None, "b"])],
)
def test_groups_whose_files_would_have_one_name_are_refused(
    tmp_path: Path, splits: list[str | None], buckets: list[str | None]
):
    of = [Groups.of(sorted(filter(None, x)), pa.chunked_array([x])) for x in (splits, buckets)]
    with pytest.raises(RunError, match="would have the same file names; give one of them another"):
        planned(tmp_path, samples(2), splits=of[0], buckets=of[1])


@pytest.mark.parametrize("name", ["", "Train", "a/b", "..", "a.b", "a b", "ä", "x" * 65, "a\n"])
@pytest.mark.parametrize("kind", ["splits", "buckets"])
def test_names_that_cannot_be_part_of_a_file_name_are_refused(tmp_path: Path, kind: str, name: str):
    of = Groups(names=(name,), codes=np.zeros(2, np.int16))
    with pytest.raises(RunError, match=r"cannot be part of file names; expected 1 to 64") as error:
        planned(tmp_path, samples(2), **{kind: of})
    assert f"{kind.removesuffix('s')} {name!r}" in str(error.value)
    planned(tmp_path, samples(2), [], **{kind: of})  # what has no sample has no file


def test_groups_of_a_column_are_codes_in_the_order_of_the_names():
    chunks = [["b", None, "a"], [], ["c"]]
    plain = pa.chunked_array(chunks, pa.string())
    words = pa.chunked_array(
        [pa.array(chunk, pa.string()).dictionary_encode().cast(pa.dictionary(pa.int16(), "string"))
         for chunk in chunks]
    )  # fmt: skip
    for column in (plain, words):
        found = Groups.of(["c", "b", "x", "a"], column)
        assert found.names == ("c", "b", "x", "a")
        assert found.codes.tolist() == [1, -1, 3, 0]
        assert found.codes.dtype == np.int16
        with pytest.raises(ValueError, match="not among"):
            Groups.of(["a", "b"], column)
    assert Groups.of([], pa.chunked_array([], pa.string())).codes.tolist() == []


# -- a multiple of shards -----------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    multiple=st.integers(2, 5),
    per_tar=st.integers(2, 9),
)
def test_shards_are_a_multiple_and_as_even_as_can_be(
    counts: list[int], multiple: int, per_tar: int, tmp_path_factory: pytest.TempPathFactory
):
    codes = [code for code, count in enumerate(counts) for _ in range(count)]
    names = " ".join("abc"[: len(counts)])
    options: dict[str, Any] = {
        "splits": groups(names, codes), "images_per_tar": per_tar, "shards_multiple_of": multiple,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("plan")
    if min(counts) < multiple:
        with pytest.raises(RunError, match="too few for"):
            planned(folder, samples(len(codes)), **options)
        return
    found, tables = planned(folder, samples(len(codes)), **options)
    assert [row for table in tables for row in table["key"].to_pylist()] == [
        f"k{number}" for number in range(len(codes))
    ]
    for code, count in enumerate(counts):
        sizes = [shard.samples for shard in found.shards if shard.split == "abc"[code]]
        assert sum(sizes) == count
        assert len(sizes) % multiple == 0
        assert (len(sizes) - multiple) * per_tar < count  # no more of them than needed
        assert sizes == sorted(sizes, reverse=True)
        assert sizes[0] - sizes[-1] <= 1
        assert sizes[0] <= per_tar


def test_groups_that_are_too_small_for_the_multiple_are_named_with_a_way_out(tmp_path: Path):
    splits = groups("train val test", [0] * 20 + [1] * 3 + [2] * 5)
    options: dict[str, Any] = {"images_per_tar": 4, "shards_multiple_of": 8}
    with pytest.raises(RunError) as error:
        planned(tmp_path, samples(28), splits=splits, **options)
    assert str(error.value) == (
        "split 'val': 3 samples are too few for 8 shards, the next multiple of 8 (1 more have too "
        "few as well); lower shards_multiple_of to 3 or less, or put more samples into it"
    )
    with pytest.raises(RunError, match=r"^export: 7 samples .*; lower shards_multiple_of to 7 or"):
        planned(tmp_path, samples(7), **options)
    with pytest.raises(RunError, match=r"9 samples are too few for 16 .*; raise images_per_tar to"):
        planned(tmp_path, samples(9), **{**options, "images_per_tar": 1})


def test_a_multiple_of_shards_is_at_least_one_and_not_for_bytes():
    with pytest.raises(PlanError, match="shards_multiple_of is 0; expected at least 1"):
        ImageWriterStage(output_dir="out", shards_multiple_of=0)
    with pytest.raises(PlanError, match="cannot go together; give images_per_tar instead"):
        ImageWriterStage(output_dir="out", shards_multiple_of=8, max_bytes_per_tar=20_000)


def test_nothing_kept_is_no_shard(tmp_path: Path):
    for options in ({}, {"max_bytes_per_tar": 20_000}):
        found, tables = planned(tmp_path / str(len(options)), samples(3), [], **options)
        assert (found.shards, tables) == ((), [])
