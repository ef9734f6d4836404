"""Names of members beside the image are safe, distinct, and what they were where they can be."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.export.members import Sibling, named


def siblings(*extensions: str) -> list[Sibling]:
    return [Sibling(each, "a.tar", "v1", 512 * n, 3) for n, each in enumerate(extensions)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=50) | st.sampled_from(["jpg", "jpg_2", "a"]), max_size=12))
def test_any_extensions_become_safe_and_distinct(originals: list[str]):
    found = named(siblings(*originals), "jpg")
    names = [name for name, _ in found]
    assert len({"jpg", *names}) == len(originals) + 1
    assert all(re.fullmatch(r"[a-z0-9._-]{1,40}", name) for name in names)
    assert [each for _, each in found] == siblings(*originals)


def test_a_safe_extension_is_left_as_it_is():
    extensions = ["txt", "json", "mask.png", "cls", "a_b-c"]
    assert [name for name, _ in named(siblings(*extensions), "jpg")] == extensions
    assert named(siblings("JSON"), "jpg")[0][0] == "json"
