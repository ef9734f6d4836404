"""Names of files as ranges and globs: they stand for these files and no others."""

from fnmatch import fnmatchcase

import pytest
from braceexpand import braceexpand
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve.export.indexes.patterns import collapse, sidecars, tars
from pixsieve.testing import exports


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a.tar"], ["a.tar"]),
        (["a-1.tar"], ["a-1.tar"]),
        (["a-08.tar", "a-09.tar", "a-10.tar", "b.tar"], ["a-{08..10}.tar", "b.tar"]),
        (["a-9.tar", "a-10.tar"], ["a-9.tar", "a-10.tar"]),  # not as many digits
        (["a-1.tar", "a-3.tar"], ["a-1.tar", "a-3.tar"]),
        (["a1-0.tar", "a1-1.tar", "a2-0.tar"], ["a1-{0..1}.tar", "a2-0.tar"]),
        (["a1-0.tar", "a2-0.tar", "a2-1.tar"], ["a{1..2}-0.tar", "a2-1.tar"]),
        (["a-1.tar", "b-2.tar"], ["a-1.tar", "b-2.tar"]),
    ],
)
def test_runs_become_ranges(names, expected):
    assert collapse(names) == expected


NAMES = st.lists(
    st.builds("{}{:02d}-{:d}.tar".format, st.sampled_from("ab"), *[st.integers(0, 12)] * 2),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(NAMES)
def test_ranges_are_spelled_out_as_the_names_they_stand_for(names):
    assert [name for text in collapse(names) for name in braceexpand(text)] == names


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=60)
@given(NAMES)
def test_ranges_equal_those_of_energon(names):
    from megatron.energon.bracecollapse import collapse as theirs  # noqa: PLC0415

    assert collapse(names) == theirs(names, keep_order=True)


GROUPS = st.lists(
    st.tuples(*[st.one_of(st.none(), st.sampled_from(["a", "a-b", "b", "0123456789ab"]))] * 2),
    min_size=1,
    max_size=6,
    unique_by=lambda group: "-".join(part for part in group if part is not None),
)


@pytest.fixture(scope="module")
def sample():
    return exports.members(0)


def shards_of(folder, sample, groups):
    counted = [group for group in groups for _ in range(2)]
    return exports.finished_dataset(folder, [sample] * len(counted), groups=counted, per_shard=1)


@settings(deadline=None, max_examples=60)
@given(GROUPS)
def test_globs_match_the_tars_of_a_group_and_no_others(tmp_path_factory, sample, groups):
    dataset = shards_of(tmp_path_factory.mktemp("out"), sample, groups)
    for mine in range(len(groups) + 1):
        known = set(groups[:mine])
        inside = [shard for shard in dataset.shards if (shard.split, shard.bucket) in known]
        outside = [shard for shard in dataset.shards if shard not in inside]
        found = [
            shard
            for shard in dataset.shards
            if any(fnmatchcase(shard.tar.name, text) for text in tars(inside, outside))
        ]
        assert found == inside


@settings(deadline=None, max_examples=60)
@given(GROUPS)
def test_a_glob_matches_all_sidecars(tmp_path_factory, sample, groups):
    dataset = shards_of(tmp_path_factory.mktemp("out"), sample, groups)
    text = sidecars(dataset)
    assert all(fnmatchcase(shard.sidecar.name, text) for shard in dataset.shards)
    for other in ("dropped/dropped.parquet", "parquet/train-00000-of-00003.parquet"):
        assert not fnmatchcase(other, text)


def test_globs_are_few(tmp_path):
    samples = [exports.members(0)] * 4
    groups = [("train", "a")] * 2 + [("train", "b")] * 2
    dataset = exports.finished_dataset(tmp_path / "a", samples, groups=groups, per_shard=1)
    assert tars(dataset.shards, []) == [
        "images-train-a-0123456789ab-*.tar",
        "images-train-b-0123456789ab-*.tar",
    ]
    assert sidecars(dataset) == "images-*0123456789ab-*.parquet"
    assert sidecars(exports.plain(tmp_path / "b")) == "images-0123456789ab-*.parquet"
