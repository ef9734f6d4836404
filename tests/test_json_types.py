"""The type of one json document, and of many: the same in any order, and never too much of it."""

from __future__ import annotations

import functools
import itertools
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.json_types import (
    MAX_DEPTH,
    MAX_KEYS,
    MAX_LENGTH,
    is_uneven,
    merge,
    parse,
    paths,
    plain,
    required,
    text_of,
)

LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from([0, -5, 2**53, 2**53 + 1, -(2**63), 2**63, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "a", "Ä"])
)
KEYS = st.sampled_from(["a", "b", "", "Ä", "a.b", 'q"', "?"])
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


def type_of(document: object) -> object:
    """Return the type of a document as it comes out of its bytes."""
    return parse(text_of(msgspec.json.decode(json.dumps(document).encode())))


def merged(*documents: object) -> object:
    return functools.reduce(merge, map(type_of, documents))


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ("a", "string"), (True, "bool"), (None, "null"), (1.5, "float"), (5.0, "float"),
        (2**53, "int"), (2**53 + 1, "long"), (2**63 - 1, "long"), (-(2**63), "long"),
        (2**63, "mixed"), ([], ["null"]), ([None], ["null"]), ([1, 2], ["int"]),
        ([1, 2.5], ["float"]), ([1, None], [["int", "?"]]), ([1, "a"], ["mixed"]),
        (["a", "b"], ["string"]), ([[1], []], [[["int", "?"]]]), ({}, {}),
        ({"b": 1, "a": {"x": "y"}}, {"a": {"x": "string"}, "b": "int"}),
        ([{"x": 1}, {"x": 2, "y": "a"}], [{"x": "int", "y": ["string", "?"]}]),
    ],
)  # fmt: skip
def test_the_type_of_a_document(document: object, kind: object):
    assert type_of(document) == kind


@pytest.mark.parametrize(
    ("documents", "kind"),
    [
        ((1, 2.5), "float"),
        ((1, 2**60), "long"),
        ((2**60, 2.5), "mixed"),  # a double would be another number
        ((1, True), "mixed"),
        ((1, "1"), "mixed"),
        ((1, None), ["int", "?"]),
        ((None, None), "null"),
        (({"a": 1}, {}), {"a": ["int", "?"]}),
        (({"a": 1}, {"a": None}), {"a": ["int", "?"]}),
        (({"a": None}, {}), {"a": "null"}),
        (({"a": 1}, {}, {"a": "x"}), {"a": "mixed"}),
        (({"a": []}, {"a": ["x"]}), {"a": [["string", "?"]]}),
        (({"a": {"x": 1}}, {"a": None}), {"a": [{"x": "int"}, "?"]}),
        (({"a": {"x": 1}}, {"a": {"x": 2.5}}), {"a": {"x": "float"}}),
        (({"a": 1}, [1]), "mixed"),
    ],
)
def test_what_types_have_in_common(documents: tuple[object, ...], kind: object):
    for order in itertools.permutations(documents):
        assert merged(*order) == kind


@settings(max_examples=300, deadline=None)
@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_merging_does_not_depend_on_the_order(one: object, two: object, three: object):
    a, b, c = map(type_of, (one, two, three))
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(a, a) == a
    assert merge(merge(a, b), a) == merge(a, b)


@settings(max_examples=200, deadline=None)
@given(DOCUMENTS)
def test_a_text_stands_for_one_type_alone(document: object):
    text = text_of(document)
    assert json.dumps(parse(text), ensure_ascii=False, sort_keys=True, separators=(",", ":")) == (
        text
    )
    assert text_of(shuffled(document)) == text


def shuffled(document: object) -> object:
    """Return a document with its keys in another order."""
    if isinstance(document, dict):
        return {key: shuffled(document[key]) for key in reversed(document)}
    return [shuffled(item) for item in document] if isinstance(document, list) else document


def test_what_cannot_be_described_is_mixed():
    deep: object = 1
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    assert "mixed" in text_of(deep)
    assert text_of({str(number): 1 for number in range(MAX_KEYS + 1)}) == '"mixed"'
    assert text_of({"x" * (MAX_LENGTH // 2) + str(number): 1 for number in range(3)}) == '"mixed"'
    half = [{f"{n}": 1 for n in range(start, start + MAX_KEYS - 1)} for start in (0, MAX_KEYS)]
    assert merged(*half) == "mixed"
    inner = [{"ids": each} for each in half]
    assert merged(*inner, {"ids": {}}) == {"ids": "mixed"}


def test_a_plain_type_has_no_marks():
    kind = merged({"a": 1, "b": ["x"], "c": {"d": 2**60}}, {"b": [], "c": {"d": 1}})
    assert is_uneven(kind["a"])
    assert required(kind["a"]) == "int"
    assert plain(kind) == {"a": "int", "b": ["string"], "c": {"d": "int"}}


def test_every_key_has_a_path_of_its_own():
    kind = type_of({"a": {"b": 1}, "a.b": 2, "c": [{"x": [3]}], "": 4, 'q"[]': 5})
    found = [path for path, _ in paths(kind)]
    assert found == ['""', "a", "a.b", '"a.b"', "c", "c[]", "c[].x", "c[].x[]", '"q\\"[]"']
    assert [path for path, _ in paths(["int"])] == ["[]"]
