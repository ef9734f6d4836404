"""One reading of a sample: digests, header, caption and json fields, whatever the bytes hold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsieve import image, schema
from pixsieve.schema import Problem
from pixsieve.scorers.inspection import (
    MAX_TEXT_BYTES,
    Facts,
    InspectOptions,
    inspect_image,
    inspect_siblings,
    inspection_table,
)
from pixsieve.testing import images

NO_DECODE: frozenset[str] = frozenset()


def options(
    *,
    first_frame: bool = False,
    caption_field: str | None = None,
    limits: image.ImageLimits = image.DEFAULT_LIMITS,
    **json_fields: str,
) -> InspectOptions:
    return InspectOptions(
        decode=NO_DECODE,
        first_frame=first_frame,
        caption_field=caption_field,
        json_fields=tuple(json_fields.items()),
        limits=limits,
    )


def read(*members: tuple[str, bytes], wanted: InspectOptions | None = None) -> Facts:
    facts = Facts()
    inspect_siblings(facts, members, wanted or options())
    return facts


@pytest.mark.parametrize(
    ("data", "caption"),
    [
        (b"a cat", "a cat"),
        (b"", ""),
        (b"  two\r\nlines \n", "  two\r\nlines \n"),
        ("Ä \U0001f600 \u202e".encode(), "Ä \U0001f600 \u202e"),
        (b"\xef\xbb\xbfa mark", "\ufeffa mark"),
        (b"zero \0 in it", "zero \0 in it"),
        (b"x" * MAX_TEXT_BYTES, "x" * MAX_TEXT_BYTES),
    ],
)
def test_a_caption_is_the_text_member_to_the_byte(data: bytes, caption: str):
    facts = read(("txt", data))
    assert facts.caption == caption
    assert facts.caption.encode() == data
    assert facts.metadata_problem is None


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"caf\xe9", "txt: not UTF-8 at byte 3"),
        ("a cat".encode("utf-16"), "txt: not UTF-8 at byte 0"),
        (b"\xed\xa0\x80", "txt: not UTF-8 at byte 0"),  # a lone surrogate
        (b"x" * (MAX_TEXT_BYTES + 1), f"txt: {MAX_TEXT_BYTES + 1} bytes"),
    ],
)
def test_a_text_that_cannot_be_a_caption_says_so_and_fails_nothing(data: bytes, says: str):
    facts = read(("txt", data), ("json", b'{"text": "json"}'), wanted=options(caption_field="text"))
    assert facts.caption is None  # the text member is there: no other stands in for it
    assert facts.metadata_problem.startswith(says)
    assert facts.problem is None


def test_a_json_field_is_the_caption_where_there_is_no_text_member():
    wanted = options(caption_field="text")
    member = ("json", b'{"text": "from json"}')
    assert read(member, wanted=wanted).caption == "from json"
    assert read(member, ("txt", b"from txt"), wanted=wanted).caption == "from txt"
    assert read(member, ("txt", b""), wanted=wanted).caption == ""
    assert read(member).caption is None
    assert read(("json", b"{}"), wanted=wanted).caption is None
    number = read(("json", b'{"text": 3}'), wanted=wanted)
    assert number.caption is None
    assert number.metadata_problem == "json field 'text': expected string, found int"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("string", '"a"', "a"),
        ("string", '""', ""),
        ("string", r'"\u0000 \ud83d\ude00"', "\0 \U0001f600"),
        ("int64", "-9223372036854775808", -(2**63)),
        ("int64", "9223372036854775807", 2**63 - 1),
        ("double", "1", 1.0),
        ("double", "-0.0", -0.0),
        ("double", "1e-400", 0.0),
        ("double", "9" * 30, 1e30),
        ("bool", "true", True),
        ("bool", "false", False),
        *((kind, "null", None) for kind in ("string", "int64", "double", "bool")),
    ],
)
def test_a_json_value_of_the_right_type_becomes_a_column(kind: str, text: str, value: object):
    wanted = options(field=kind)
    facts = read(("json", f'{{"other": [1, {{}}], "field": {text}}}'.encode()), wanted=wanted)
    assert facts.metadata_problem is None
    (found,) = inspection_table([facts], wanted)["field"].to_pylist()
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "found"),
    [
        ("string", "1", "int"),
        ("string", "[]", "list"),
        ("int64", "1.0", "float"),
        ("int64", "true", "bool"),
        ("int64", '"1"', "str"),
        ("int64", "9223372036854775808", "a larger number"),
        ("int64", "-9223372036854775809", "a larger number"),
        ("double", "true", "bool"),
        ("double", "9" * 400, "a larger number"),
        ("bool", "1", "int"),
        ("bool", '"true"', "str"),
        ("bool", "{}", "dict"),
    ],
)
def test_a_json_value_of_another_type_is_null_and_named(kind: str, text: str, found: str):
    facts = read(
        ("json", f'{{"field": {text}, "good": "x"}}'.encode()),
        wanted=options(field=kind, good="string"),
    )
    assert facts.fields == {"field": None, "good": "x"}
    assert facts.metadata_problem == f"json field 'field': expected {kind}, found {found}"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b'{"field": NaN}', b'{"field": Infinity}', b'{"field": 1e999}',
        b"{'field': 'a'}",
        b'{"field": "a"} x', b'{"field": "\xff"}', rb'{"field": "\ud800 alone"}', b'{"field": 01}',
        b'\xef\xbb\xbf{"field": "a"}', b"[" * 100_000, b'{"a":' * 100_000, b'["field"]', b'"field"',
        b"null", b"3", b'{"field": ' + b"9" * 5000 + b"}", b" " * (MAX_TEXT_BYTES + 1),
    ],
    ids=range(19),
)  # fmt: skip
def test_json_that_cannot_be_read_is_noted_and_fails_nothing(data: bytes):
    wanted = options(caption_field="field", field="string")
    facts = read(("json", data), wanted=wanted)
    assert facts.problem is None
    assert facts.metadata_problem.startswith("json: ")
    row = inspection_table([facts], wanted).to_pylist()[0]
    assert (row["field"], row["caption"]) == (None, None)
    assert row["metadata_problem"] == facts.metadata_problem


def test_the_last_of_equal_json_keys_counts():
    facts = read(("json", b'{"field": 1, "field": 2}'), wanted=options(field="int64"))
    assert facts.fields == {"field": 2}


def test_the_type_of_the_json_is_told_without_being_asked_for():
    facts = read(("json", b'{"b": [1, 2.5], "a": null}'), ("txt", b"x"), ("cls", b"1"))
    assert facts.json_type == '{"a":"null","b":["float"]}'
    assert facts.extensions == "cls json txt"
    assert facts.fields == {}
    assert facts.metadata_problem is None
    assert read(("json", b"[1]")).json_type == '["int"]'
    assert read(("json", b"[1]")).metadata_problem is None  # nobody wants a field of it


def test_json_behind_a_byte_order_mark_has_a_type_and_is_noted():
    facts = read(("json", b'\xef\xbb\xbf{"a": 1}'), wanted=options(a="int64"))
    assert facts.json_type == '{"a":"int"}'
    assert facts.fields == {"a": None}
    assert facts.metadata_problem.startswith("json: ")
    assert read(("json", b"\xef\xbb\xbf{")).json_type is None


def test_json_that_is_none_has_no_type_and_is_noted():
    for data in (b"{", b'{"a": NaN}', b"\xff", b" " * (MAX_TEXT_BYTES + 1)):
        facts = read(("json", data))
        assert facts.json_type is None
        assert facts.metadata_problem.startswith("json: ")
    assert read().json_type is None
    assert read().metadata_problem is None
    assert read().extensions == ""


def test_all_faults_of_a_sample_are_noted():
    member = ("json", b'{"a": 1, "b": 2}')
    facts = read(("txt", b"\xff"), member, wanted=options(a="string", b="bool"))
    assert facts.metadata_problem == (
        "txt: not UTF-8 at byte 0; json field 'a': expected string, found int; "
        "json field 'b': expected bool, found int"
    )


@given(st.text(), st.integers(), st.floats(), st.booleans())
def test_what_json_writes_is_read_back(text: str, number: int, real: float, truth: bool):
    document = {"text": text, "number": number, "real": real, "truth": truth}
    wanted = options(text="string", number="int64", real="double", truth="bool")
    facts = read(("json", json.dumps(document).encode()), wanted=wanted)
    if math.isfinite(real):
        fits = -(2**63) <= number < 2**63
        assert facts.fields == {**document, "number": number if fits else None}
    else:
        assert facts.metadata_problem.startswith("json: ")
    inspection_table([facts], wanted)  # fits its schema whatever it holds


MEMBERS = st.lists(
    st.tuples(st.sampled_from(["txt", "json", "cls", "a.png", ""]), st.binary(max_size=6)),
    max_size=4,
)


@given(MEMBERS, MEMBERS)
def test_the_siblings_digest_tells_any_name_byte_and_order(
    one: list[tuple[str, bytes]], two: list[tuple[str, bytes]]
):
    assert (read(*one).siblings_sha256 == read(*two).siblings_sha256) == (one == two)


def test_the_siblings_digest_cannot_be_shifted_between_members():
    """What ends one member and starts the next must not matter."""
    whole = read(("txt", b"ab"), ("cls", b"c")).siblings_sha256
    assert whole != read(("txt", b"a"), ("cls", b"bc")).siblings_sha256
    assert whole != read(("txt", b"abcls\x001\x00c")).siblings_sha256
    assert whole != read(("txt", b"abcls\x00c")).siblings_sha256
    assert read().siblings_sha256 == hashlib.sha256(b"").hexdigest()


def test_the_image_is_told_by_its_bytes():
    data = images.oriented_jpeg(6, width=96, height=64)
    facts = Facts()
    inspect_image(facts, data, options())
    (row,) = inspection_table([facts], options()).to_pylist()
    assert row["sha256"] == hashlib.sha256(data).hexdigest()
    assert (row["format"], row["width"], row["height"]) == ("jpeg", 64, 96)  # upright
    assert (row["mode"], row["exif_orientation"], row["frames"]) == ("RGB", 6, 1)
    assert row["problem"] is row["problem_detail"] is None


@pytest.mark.parametrize(
    ("data", "problem", "says"),
    [
        (b"", Problem.EMPTY_IMAGE, "no bytes"),
        (images.not_images()["HTML"], Problem.UNSUPPORTED_FORMAT, "HTML"),
        (images.photo()[:100], Problem.TRUNCATED_IMAGE, "ends in its header"),
        (images.bomb_png(), Problem.TOO_MANY_PIXELS, "60000 x 60000"),
        (images.animated_gif(3), Problem.ANIMATED, "3 frames; animated='first_frame' takes the"),
    ],
)
def test_a_bad_image_is_a_row_with_its_digest(data: bytes, problem: Problem, says: str):
    facts = Facts()
    inspect_image(facts, data, options())
    (row,) = inspection_table([facts], options()).to_pylist()
    assert row["problem"] == problem
    assert says in row["problem_detail"]
    assert row["sha256"] == hashlib.sha256(data).hexdigest()


def test_an_image_that_its_new_format_cannot_hold_is_a_row_not_the_end_of_the_export():
    panorama = images.photo(0, 16_400, 8, "PNG")
    for encode, problem in (("webp", Problem.TOO_MANY_PIXELS), ("jpeg", None), ("png", None)):
        facts = Facts()
        inspect_image(facts, panorama, dataclasses.replace(options(), encode=encode))
        assert facts.problem == problem
    assert facts.problem_detail is None


def test_a_first_frame_is_taken_where_it_was_asked_for():
    facts = Facts()
    inspect_image(facts, images.animated_webp(2), options(first_frame=True))
    assert facts.problem is None
    assert facts.header.frames == 2


def test_a_table_of_nothing_has_every_column_with_its_type():
    wanted = options(likes="int64", text="string")
    table = inspection_table([Facts()], wanted)
    assert table.schema == wanted.schema
    assert table.schema.names == [*schema.INSPECTION.names, "likes", "text"]
    assert table.to_pylist() == [dict.fromkeys(table.schema.names)]
    assert inspection_table([], wanted).schema == wanted.schema
