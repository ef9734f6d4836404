"""Uniform samples: json of one type tree, nothing invented but empty text, nothing lost."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve import json_types
from pixsieve.export.uniform import normalised, original_bytes, original_text, schema_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
