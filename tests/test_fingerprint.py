"""Fingerprints tell apart all that may give another result, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, make_dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixsieve.fingerprint import canonical, fingerprint
from pixsieve.stages import FilterStage, ImageReaderStage, ShuffleStage

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@dataclass(frozen=True)
class Cut:
    where: object = None


@dataclass(frozen=True)
class Crop:
    where: object = None


class Colour(StrEnum):
    RED = "red"


@given(PLAIN, PLAIN)
def test_equal_values_and_only_those_have_equal_fingerprints(one: Any, two: Any):
    # repr tells True from 1 and 1 from 1.0, as a fingerprint may
    if repr(canonical(one)) == repr(canonical(two)):
        assert fingerprint(one) == fingerprint(two)
    else:
        assert fingerprint(one) != fingerprint(two)
    assert fingerprint(one, two) != fingerprint([one, two])


@given(st.dictionaries(st.text(max_size=3), st.integers(), min_size=2))
def test_the_order_of_a_dict_does_not_matter(items: dict[str, int]):
    turned = dict(reversed(items.items()))
    assert fingerprint(items) == fingerprint(turned)
    assert fingerprint(ImageReaderStage(json_fields={"a": "bool", "b": "string"})) == (
        fingerprint(ImageReaderStage(json_fields={"b": "string", "a": "bool"}))
    )


def test_borders_between_values_count():
    assert fingerprint("ab", "c") != fingerprint("a", "bc") != fingerprint("abc")
    assert fingerprint(["a"], []) != fingerprint([], ["a"])
    assert fingerprint() != fingerprint(None) != fingerprint("null")


def test_classes_with_equal_fields_differ():
    assert fingerprint(Cut()) != fingerprint(Crop())
    assert fingerprint(ShuffleStage(seed=1)) != fingerprint(ShuffleStage(seed=2))
    assert fingerprint(FilterStage("a")) == fingerprint(FilterStage(where="a"))


def test_classes_of_one_name_in_two_packages_differ():
    one, two = make_dataclass("Score", ["x"]), make_dataclass("Score", ["x"])
    one.__module__, two.__module__ = "cats.scorers", "dogs.scorers"
    assert fingerprint(one(1)) != fingerprint(two(1))
    assert canonical(one(1)) == {"@": "cats.scorers:Score", "x": 1}


def test_own_stages_are_named_without_their_module_so_that_files_may_be_moved():
    assert canonical(FilterStage("a")) == {"@": "FilterStage", "where": "a"}


def test_other_spellings_of_plain_values_count_as_these():
    assert canonical((1, [2])) == [1, [2]]
    assert canonical({3, 1, 2}) == canonical(frozenset({1, 2, 3})) == [1, 2, 3]
    assert canonical(Colour.RED) == "red"
    assert canonical(PurePosixPath("a/b")) == canonical(Path("a/b")) == "a/b"


@pytest.mark.parametrize("value", [print, object(), b"bytes", 1j, {"a": [lambda: 1]}, FilterStage])
def test_what_cannot_be_told_is_refused(value: object):
    with pytest.raises(TypeError, match="has no canonical form; stages may hold plain values only"):
        canonical(value)


def test_a_fingerprint_is_the_same_in_every_process():
    expected = fingerprint(FilterStage("width > 1"), {"a": {1, 2}}, ["x"])
    assert expected == "e1bd0fa02ae33893732c3f7b11001ef284243a691218f183b23d731f4318230f"
    script = (
        "from pixsieve.fingerprint import fingerprint; from pixsieve.stages import FilterStage;"
        "print(fingerprint(FilterStage('width > 1'), {'a': {1, 2}}, ['x']))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "17"},
    )  # fmt: skip
    assert found.stdout.strip() == expected
