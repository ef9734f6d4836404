"""The tasks of a search, one by one: what they leave for one another."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.select import search, spill
from pixsieve.select.neighbours import Limits

if TYPE_CHECKING:
    from pathlib import Path

ALL = Limits(least=0.5, first=100, nearest=0)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.fixture
def ranks(tmp_path: Path) -> str:
    """Return ranks and places that are the numbers of the rows."""
    path = str(tmp_path / "ranks")
    spill.write(path, {"rank": np.arange(20), "place": np.arange(20)})
    return path


def found(path: Path, *pairs: tuple[int, int], copies: tuple[tuple[int, int], ...] = ()) -> str:
    worse, better = np.array(sorted(pairs), np.int64).reshape(-1, 2).T
    copy, of = np.array(sorted(copies), np.int64).reshape(-1, 2).T
    arrays = {
        "worse": worse,
        "better": better,
        "cosine": 1 - 0.01 * (worse - better),
        "cut": np.zeros(len(worse), np.bool_),
        "place": worse,
        "copy": copy,
        "copy_place": copy,
        "copy_of": of,
    }
    spill.write(str(path), arrays)
    return str(path)


def pairs_in(path: str) -> list[tuple[int, int]]:
    known = spill.read(path)
    return list(zip(known["worse"].tolist(), known["better"].tolist(), strict=True))


def test_lists_of_a_run_hold_what_any_task_found_once(tmp_path, ranks):
    tasks = [found(tmp_path / "1", (5, 2), (9, 3)), found(tmp_path / "2", (5, 1), (5, 2))]
    search.gather(tasks, ranks, ALL, (0, 8), str(tmp_path / "low"))
    search.gather(tasks, ranks, ALL, (8, 20), str(tmp_path / "high"))
    assert pairs_in(str(tmp_path / "low")) == [(5, 1), (5, 2)]
    assert pairs_in(str(tmp_path / "high")) == [(9, 3)]
    assert search.wanted([str(tmp_path / n) for n in ("low", "high")], (2, 9)).tolist() == [2, 3, 5]


def test_a_copy_has_the_neighbours_of_what_it_is_one_of(tmp_path, ranks):
    tasks = [
        found(tmp_path / "1", (4, 2), copies=((9, 4), (10, 4))),
        found(tmp_path / "2", (4, 1), (9, 0)),
    ]
    search.gather(tasks, ranks, ALL, (8, 20), str(tmp_path / "lists"))
    assert pairs_in(str(tmp_path / "lists")) == [
        (9, 0), (9, 1), (9, 2), (9, 4), (10, 1), (10, 2), (10, 4),
    ]  # fmt: skip


def lists_of(
    path: Path, *pairs: tuple[int, int, float], cut: tuple[int, ...] = ()
) -> tuple[str, str]:
    """Write lists and the answers to them."""
    worse, better = (ints(*(int(pair[at]) for pair in pairs)) for at in range(2))
    arrays: dict[str, Any] = {"worse": worse, "better": better, "cosine": np.ones(len(worse))}
    spill.write(
        str(path),
        {
            **arrays,
            "cut": np.isin(worse, cut),
            "wanted": np.unique(np.append(worse, better)),
        },
    )
    spill.write(f"{path}-ncc", {"ncc": np.array([pair[2] for pair in pairs])})
    return str(path), f"{path}-ncc"


def test_what_was_settled_stays_so_and_open_rows_are_settled_by_new_lists(tmp_path, ranks):
    lists, ncc = lists_of(
        tmp_path / "1",
        (1, 0, 0.9),  # goes
        (2, 1, 0.9),  # its only listed one goes, and there are others
        (3, 2, 0.9),  # hangs on that
        (5, 1, 0.1),  # like none, but an unlike one that is listed goes
        (6, 4, 0.1),  # like none that is listed, and all of these stay
        cut=(2, 5, 6),
    )
    first, then = str(tmp_path / "s1"), str(tmp_path / "s2")
    search.settle([lists], [[ncc]], 0.85, ranks, None, first)
    known = spill.read(first)
    assert known["gone"].tolist() == [1]
    assert known["open"].tolist() == [2, 3, 5]
    assert known["crowded"].tolist() == [3]

    lists, ncc = lists_of(tmp_path / "2", (3, 2, 0.9), (5, 4, 0.95), cut=(5,))
    search.settle([lists], [[ncc]], 0.85, ranks, first, then)
    known = spill.read(then)
    assert known["gone"].tolist() == [1, 3, 5]
    assert known["open"].tolist() == []
    assert known["crowded"].tolist() == [3]
    pairs, agreement = search.keepers(then)
    assert list(zip(pairs.worse.tolist(), pairs.better.tolist(), strict=True)) == [
        (1, 0), (3, 2), (5, 4),
    ]  # fmt: skip
    assert agreement.tolist() == [0.9, 0.9, 0.95]


def test_the_keeper_is_the_best_that_stays(tmp_path, ranks):
    lists, ncc = lists_of(
        tmp_path / "1", (1, 0, 0.9), (4, 1, 0.99), (4, 2, 0.86), (4, 3, 0.95), (2, 0, 0.2)
    )
    search.settle([lists], [[ncc]], 0.85, ranks, None, str(tmp_path / "settled"))
    pairs, _ = search.keepers(str(tmp_path / "settled"))
    assert pairs.better.tolist() == [0, 2]


def test_pictures_that_are_not_there_confirm_nothing(tmp_path):
    rng = np.random.default_rng(0)
    picture = np.kron(rng.integers(0, 256, (4, 4)), np.ones((8, 8))).astype(np.uint8).reshape(1, -1)
    spill.write(str(tmp_path / "a"), {"row": ints(), "picture": np.empty((0, 1024), np.uint8)})
    both = np.concatenate([picture, picture])
    spill.write(str(tmp_path / "b"), {"row": ints(3, 7), "picture": both})
    lists, _ = lists_of(tmp_path / "lists", (5, 3, 0), (7, 3, 0), (9, 7, 0))
    pictured = [str(tmp_path / name) for name in "ab"]
    search.confirm(lists, pictured, (0, 2), 0.85, str(tmp_path / "1"))
    search.confirm(lists, pictured, (2, 4), 0.85, str(tmp_path / "2"))
    answers = [spill.read(str(tmp_path / n))["ncc"].tolist() for n in "12"]
    assert answers == [[-1, 1], [-1]]


def test_pixels_are_those_of_the_rows_that_have_a_picture():
    whole = pa.array([b"zz", b"ab", None, b"cd"], pa.binary(2))
    there, pixels = search.pixels_of(pa.chunked_array([whole.slice(1, 2), whole.slice(3)]))
    assert there.tolist() == [True, False, True]
    assert [each.tobytes() for each in pixels] == [b"ab", b"cd"]
    there, pixels = search.pixels_of(pa.chunked_array([whole.slice(2, 1)]))
    assert pixels.shape == (0, 2)


def test_runs_of_cells_cover_all_and_cost_about_as_much(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_TASK_PRODUCTS", 1000.0)
    cell = np.repeat(np.arange(30), 10).astype(np.int32)
    arrays = {"cell": cell, "visited": np.empty(0, np.int32)}
    spill.write(str(tmp_path / "a"), arrays)
    runs = search.ranges([str(tmp_path / "a")], 30, 8)
    assert runs[0][0] == 0
    assert runs[-1][1] == 30
    assert all(one[1] == other[0] for one, other in itertools.pairwise(runs))
    assert {high - low for low, high in runs[1:-1]} <= {2, 3}  # 400 products a cell
