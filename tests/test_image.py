"""Hostile bytes: nothing but an ImageProblemError comes of them."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pixsieve import image
from pixsieve.image import EncodeOptions, ImageHeader, ImageLimits, ImageProblemError
from pixsieve.testing.image_kinds import attempt, every_kind

ALL_KINDS = every_kind()


@st.composite
def mutated(draw) -> bytes:
    data = bytearray(ALL_KINDS[draw(st.sampled_from(sorted(ALL_KINDS)))])
    for _ in range(draw(st.integers(0, 4))):
        # Half of the edits hit the header, where the decoders' decisions are made.
        at = draw(st.integers(0, min(400, len(data) - 1)) | st.integers(0, len(data) - 1))
        edit = draw(st.binary(min_size=1, max_size=4))
        data[at : at + draw(st.sampled_from([0, len(edit)]))] = edit
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated() | st.binary(max_size=200), st.sampled_from(["jpeg", "png", "webp"]))
def test_nothing_but_an_image_problem_comes_of_any_bytes(data, to):
    header = attempt(lambda: image.probe(data, ImageLimits(max_pixels=200_000)))
    found = [header]
    if isinstance(header, ImageHeader):
        found += [
            attempt(lambda: image.check_decode(data, header)),
            attempt(lambda: image.decode(data, header, min_side=8)),
            attempt(lambda: image.decode(data, header, gray=True)),
            attempt(lambda: image.encode(data, header, EncodeOptions(format=to))),
        ]
    assert image.describe(data).isprintable()
    assert all(each.detail.isprintable() for each in found if isinstance(each, ImageProblemError))
