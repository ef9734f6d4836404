"""Uniform samples: json of one type tree, nothing invented but empty text, nothing lost."""

from __future__ import annotations

import functools
import itertools
import json
import re
import tarfile
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve import json_types
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import RunError
from pixsieve.export.uniform import normalised, original_bytes, original_text, schema_of
from pixsieve.pipeline import Pipeline
from pixsieve.scorers.inspection import MAX_TEXT_BYTES
from pixsieve.stages import FilterStage, ImageReaderStage, ImageWriterStage
from pixsieve.testing import images
from pixsieve.testing.faults import tree
from pixsieve.testing.uneven import uneven_files
from pixsieve.verify import verify

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from pixsieve.stage import Stage

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([0, 1, 2**53, 2**53 + 1])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
)
KEYS = st.sampled_from(["a", "b", "c", "Ä\n", '"'])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
ALIKE = st.fixed_dictionaries(
    {
        "s": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        "n": st.integers(-9, 9) | st.floats(-9, 9),
        "l": st.lists(st.integers(0, 9), min_size=1, max_size=3),
        "o": st.fixed_dictionaries({"x": st.booleans()}, optional={"t": st.just("text")}),
    },
    optional={"more": VALUES, "text": st.text("xyz") | st.none()},
)
DOCUMENTS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4) | ALIKE, min_size=1, max_size=5)


def decoded(document: object) -> Any:
    return msgspec.json.decode(json.dumps(document).encode())


def merged(documents: Sequence[object]) -> Any:
    texts = [json_types.text_of(decoded(each)) for each in documents]
    return functools.reduce(json_types.merge, map(json_types.parse, texts))


def exact(value: object) -> object:
    """Return the type of a value with every detail, from its bytes: a float has a point."""
    if isinstance(value, dict):
        return {key: exact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        kinds = {json.dumps(exact(item)) for item in value}
        assert len(kinds) == 1, "an empty list, or items of several types"
        return [json.loads(kinds.pop())]
    return type(value).__name__


def leaves(
    value: object, path: tuple[object, ...] = ()
) -> Iterator[tuple[tuple[object, ...], Any]]:
    if isinstance(value, dict | list):
        found = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in found:
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def at(value: Any, path: tuple[object, ...]) -> object:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else value[key]
        if value is None:
            return None
    return value


@settings(max_examples=400, deadline=None)
@given(DOCUMENTS)
def test_normalised_json_has_one_type_and_the_values_that_there_were(documents: list[Any]):
    schema = schema_of(merged(documents))
    if schema is None:
        return
    written = [normalised(decoded(document), schema) for document in documents]
    found = [json.loads(data, parse_constant=pytest.fail) for data in written]
    assert len({json.dumps(exact(each)) for each in found}) == 1  # also in the order of keys
    assert b"null" not in b"".join(re.sub(rb'"(\\.|[^"\\])*"', b"", data) for data in written)
    for before, after in zip(documents, found, strict=True):
        for path, value in leaves(after):
            was = at(before, path)
            assert value == was or (value == "" and was is None)
            assert isinstance(value, bool) == isinstance(was, bool)
    assert all(re.fullmatch(rb"(?s)\{.+\}", data) for data in written)


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS)
def test_what_all_have_of_one_type_is_kept(documents: list[Any]):
    schema = schema_of(merged(documents)) or {}
    for key in set.intersection(*(set(each) for each in documents)):
        kinds = {type(each[key]) for each in documents}
        if kinds in ({str}, {bool}, {float}):
            assert key in schema


@pytest.mark.parametrize(
    ("documents", "written"),
    [
        ([{"a": 1}, {"a": 2.5}], ['{"a":1.0}', '{"a":2.5}']),
        ([{"a": 1e16}, {"a": 5e-324}], ['{"a":1.0e+16}', '{"a":5.0e-324}']),
        ([{"a": -0.0}, {"a": 3}], ['{"a":-0.0}', '{"a":3.0}']),
        ([{"b": 1, "a": "x"}, {"a": None, "b": 2}], ['{"a":"x","b":1}', '{"a":"","b":2}']),
        ([{"a": "x", "b": True}, {"b": False}], ['{"a":"x","b":true}', '{"a":"","b":false}']),
        ([{"a": 1, "b": 1}, {"b": 2}], ['{"b":1}', '{"b":2}']),
        ([{"a": [1], "b": 1}, {"a": [], "b": 1}], ['{"b":1}'] * 2),
        ([{"a": ["x", None], "b": 1}], ['{"b":1}']),
        ([{"a": [[1, 2], [3.5]], "b": 1}], ['{"a":[[1.0,2.0],[3.5]],"b":1}']),
        ([{"a": [{"x": 1}, {"x": 2, "y": 3}]}], ['{"a":[{"x":1},{"x":2}]}']),
        ([{"a": {"x": 1, "y": None}, "b": {}}], ['{"a":{"x":1}}']),
        ([{"a": {"x": "t"}, "b": 1}, {"a": None, "b": 1}], ['{"b":1}'] * 2),
        ([{"a": 2**60}, {"a": 1}], ['{"a":1152921504606846976}', '{"a":1}']),
        ([{"a": 2**53}, {"a": 0.5}], ['{"a":9007199254740992.0}', '{"a":0.5}']),
        ([{"a": 'Ä\u2028\n"', "b": 2**63}], ['{"a":"Ä\u2028\\n\\""}']),
    ],
)  # fmt: skip
def test_how_documents_are_written(documents: list[Any], written: list[str]):
    schema = schema_of(merged(documents))
    assert [normalised(decoded(each), schema).decode() for each in documents] == written


@pytest.mark.parametrize(
    "documents",
    [[{"a": 1}, {"b": 1}], [{"a": None}], [{}], [[1], [2]], [{"a": 1}, "text"], [{"a": 2**63}]],
)
def test_what_has_nothing_in_common_has_no_schema(documents: list[Any]):
    assert schema_of(merged(documents)) is None


def test_a_document_of_another_schema_is_told():
    for document in ({}, {"a": "x"}, {"a": None}, [1], "text", {"a": [1]}):
        with pytest.raises(ValueError, match="does not fit"):
            normalised(document, {"a": "float", "b": {"c": "int"}})


@given(st.binary(max_size=40) | st.binary(max_size=9).map(lambda data: b"data:" + data))
def test_any_bytes_come_back_from_their_text(data: bytes):
    assert original_bytes(original_text(data, "application/json")) == data


def test_bytes_that_are_text_stand_as_that_text():
    assert original_text('{"ä": 1}'.encode(), "application/json") == '{"ä": 1}'
    assert original_text(b"\xff", "application/json") == "data:application/json;base64,/w=="


# -- whole exports ----------------------------------------------------------------------------


def export(
    folder: Path,
    files: Mapping[str, bytes],
    *stages: Stage,
    caption_field: str | None = None,
    **writer: Any,
) -> tuple[list[dict[str, bytes]], list[dict[str, Any]], tuple[str, ...]]:
    """Return the samples of an export by extension, their rows, and the run's notes."""
    source, output = folder / "source", folder / "out"
    source.mkdir(parents=True)
    for name, data in files.items():
        (source / name).write_bytes(data)
    pipeline = Pipeline(name="uneven").add_stage(
        ImageReaderStage(str(source), caption_field=caption_field)
    )
    for stage in stages:
        pipeline.add_stage(stage)
    options = {"images_per_tar": 10, "members": "uniform"} | writer
    pipeline.add_stage(ImageWriterStage(output_dir=str(output), **options))
    result = pipeline.run(InlineExecutor())
    samples, rows = [], []
    for tar in result.shards:
        rows += pq.read_table(output / f"{tar[:-4]}.parquet").to_pylist()
        with tarfile.open(output / tar) as archive:
            found = [(m.name, archive.extractfile(m).read()) for m in archive]
        for _, group in itertools.groupby(found, lambda member: member[0].partition(".")[0]):
            samples.append({name.partition(".")[2]: data for name, data in group})
    if not stages:
        assert [row["original_key"] for row in rows] == sorted({name[:3] for name in files})
    assert verify(output, workers=0).findings == ()
    return samples, rows, result.notes


def test_an_uneven_selection_becomes_even_and_loses_nothing(tmp_path: Path):
    files = uneven_files()
    samples, rows, _ = export(tmp_path, files)
    assert {tuple(sample) for sample in samples} == {("jpg", "txt", "json")}
    documents = [json.loads(sample["json"]) for sample in samples]
    assert len({json.dumps(exact(document)) for document in documents}) == 1
    assert exact(documents[0]) == {
        "boxes": [{"at": ["float"], "label": "str"}],
        "id": "int",
        "license": "str",
        "name": "str",
        "safe": "bool",
        "score": "float",
        "size": {"unit": "str", "x": "int", "y": "float"},
        "tags": ["str"],
        "title": "str",
        "width": "int",
    }
    for row, sample, document in zip(rows, samples, documents, strict=True):
        key = row["original_key"]
        was = files[f"{key}.json"]
        assert original_bytes(row["original_json"]) == was
        assert document["size"]["x"] == json.loads(was)["size"]["x"]
        text = files.get(f"{key}.txt", b"")
        if key == "014":
            assert (row["caption"], sample["txt"]) == (None, b"")
            assert original_bytes(row["original_txt"]) == text
        else:
            assert (sample["txt"], row["original_txt"]) == (text, None)
            assert row["caption"] == (text.decode() if f"{key}.txt" in files else None)
    assert documents[0]["license"] == documents[0]["title"] == documents[9]["size"]["unit"] == ""
    assert documents[9]["title"] == "text that one has"
    assert documents[3]["score"] == 3.25


def test_what_changes_is_told_with_counts(tmp_path: Path):
    _, _, notes = export(tmp_path, uneven_files())
    assert {
        "3 of 24 samples have no .txt: theirs is empty, or their caption",
        (
            "the .txt of 1 of 24 samples is not UTF-8: it is empty in the tars, and in the "
            "sidecar's original_txt as it was"
        ),
        (
            ".json members are written anew, by one schema; as they were, they stand in the "
            "sidecar's original_json"
        ),
        "json key 'early': left out, 11 of 24 samples lack it",
        "json key 'kind': left out, of several types: int in 13, string in 11",
        "json key 'huge': left out, of several types: int in 23, others in 1",
        "json key 'license': \"\" where there is none: 6 of 24 samples lack it",
        "json key 'maybe': left out, empty, or with nulls, in 13 of 24 samples",
    } <= set(notes)


def test_samples_without_json_have_text_alone_in_common(tmp_path: Path):
    files = uneven_files(some_without_json=True)
    samples, rows, notes = export(tmp_path, files)
    documents = [json.loads(sample["json"]) for sample in samples]
    assert {tuple(document) for document in documents} == {("license", "name", "title")}
    assert documents[3] == documents[4] == {"license": "", "name": "", "title": ""}
    for row in rows:
        was = files.get(f"{row['original_key']}.json")
        found = row["original_json"]
        assert (None if found is None else original_bytes(found)) == was
    assert sum(row["metadata_problem"] is not None for row in rows) == 5
    assert "2 of 24 samples have no .json: it counts as {}" in notes
    assert "the .json of 4 of 24 samples is not JSON: it counts as {}" in notes


def test_json_that_has_nothing_in_common_is_in_the_sidecar_alone(tmp_path: Path):
    files = {name: data for name, data in uneven_files().items() if not name.endswith("json")}
    files |= {"000.json": b"[1]", "001.json": b'{"a": 1}'}
    samples, rows, notes = export(tmp_path, files)
    assert {tuple(sample) for sample in samples} == {("jpg", "txt")}
    assert [row["original_json"] for row in rows] == ["[1]", '{"a": 1}', *[None] * 22]
    assert any(note.startswith(".json members are left out of the tars, since") for note in notes)


def test_a_caption_from_json_is_the_text_where_there_is_none(tmp_path: Path):
    samples, rows, _ = export(tmp_path, uneven_files(), caption_field="name")
    for number in (1, 13, 20):
        assert rows[number]["caption"] == f"näme \u2028 {number}"
        assert samples[number]["txt"].decode() == rows[number]["caption"]


def test_what_is_even_stays_as_it_is_but_for_the_form_of_its_json(tmp_path: Path):
    files = {}
    for number in range(3):
        files[f"{number:03d}.jpg"] = images.photo(number)
        files[f"{number:03d}.cls"] = b"7"
        files[f"{number:03d}.json"] = b'{ "b":1, "a": "x" }'
    samples, rows, _ = export(tmp_path, files)
    assert {tuple(sample) for sample in samples} == {("jpg", "json", "cls")}
    assert {sample["json"] for sample in samples} == {b'{"a":"x","b":1}'}
    assert "original_txt" not in rows[0]
    plain, rows, _ = export(tmp_path / "plain", {k: v for k, v in files.items() if k[4:] == "jpg"})
    assert {tuple(sample) for sample in plain} == {("jpg",)}
    assert "original_json" not in rows[0]


def test_a_byte_order_mark_costs_no_value(tmp_path: Path):
    files = {"000.jpg": images.photo(0), "000.json": b'\xef\xbb\xbf{"a": 1}'}
    samples, rows, _ = export(tmp_path, files)
    assert samples[0]["json"] == b'{"a":1}'
    assert original_bytes(rows[0]["original_json"]) == files["000.json"]


def test_members_that_cannot_be_made_up_are_refused_before_any_work(tmp_path: Path):
    files = {f"{number:03d}.jpg": images.photo(number) for number in range(4)}
    files |= {"001.npy": b"x", "002.npy": b"x", "003.npy": b"x", "002.seg": b"x"}
    with pytest.raises(RunError) as caught:
        export(tmp_path, files)
    assert str(caught.value) == (
        "members='uniform': not all of the 4 samples have the same members, and these cannot be "
        "made up: .npy in 3, .seg in 1; leave the other samples out with a filter, such as "
        "\"extensions LIKE '%npy%'\", or leave them as they are with members='as_found'"
    )
    assert not list((tmp_path / "out").glob("*.tar"))
    for number, (where, beside) in enumerate(
        [
            ("extensions LIKE '%npy%' AND extensions NOT LIKE '%seg%'", "npy"),
            ("extensions = ''", ""),
        ]
    ):
        samples, _, _ = export(tmp_path / str(number), files, FilterStage(where))
        assert {tuple(sample) for sample in samples} == {tuple(f"jpg {beside}".split())}


def test_json_that_is_too_large_is_refused_before_any_work(tmp_path: Path):
    files = {"000.jpg": images.photo(0), "000.json": b'{"a": "' + b"x" * MAX_TEXT_BYTES + b'"}'}
    with pytest.raises(RunError, match=r"1 of 1 samples have a \.json of more than 1,048,576 byte"):
        export(tmp_path, files)


def test_the_schema_is_part_of_the_files_names(tmp_path: Path):
    """Equal rows in one shard are other bytes where another shard's json has other types."""
    files = {f"{number:03d}.jpg": images.photo(number) for number in range(4)}
    names = []
    for last in (b"1", b"1.5"):
        files |= {f"{number:03d}.json": b'{"a": 1}' for number in range(3)}
        files["003.json"] = b'{"a": %s}' % last
        folder = tmp_path / last.decode()
        samples, _, _ = export(folder, files, images_per_tar=2, deterministic_name=False)
        assert samples[0]["json"] == (b'{"a":1}' if last == b"1" else b'{"a":1.0}')
        intent = json.loads((folder / "out" / "manifest.json").read_bytes())
        names.append(intent["plan_sha256"])
    assert len(set(names)) == 2


def test_workers_and_a_second_run_make_the_same(tmp_path: Path):
    """The schema goes through the ledger and to worker processes."""
    export(tmp_path, uneven_files())
    output = tmp_path / "out"
    before = tree(output)
    assert (tmp_path / "out" / "manifest.json").exists()
    pipeline = Pipeline(name="uneven").add_stage(ImageReaderStage(str(tmp_path / "source")))
    writer = {"images_per_tar": 10, "members": "uniform"}
    pipeline.add_stage(ImageWriterStage(output_dir=str(output), **writer))
    assert pipeline.run(InlineExecutor()).did_nothing
    for name in sorted(output.glob("*-000001.*")):
        name.unlink()
    again = pipeline.run(LocalExecutor(workers=2))
    assert not again.did_nothing
    assert tree(output) == before
    assert "3 of 24 samples have no .txt: theirs is empty, or their caption" in again.notes
