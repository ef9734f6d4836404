"""What goes is like what stays, by cosine and by picture; nothing else decides."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixsieve.errors import PlanError
from pixsieve.select import cells, search, semantic, template
from pixsieve.select.base import sample_schema
from pixsieve.select.semantic import SemanticDeduplicationStage
from pixsieve.testing.rows import make_parts, make_scope, run_rounds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixsieve.select.base import Rows, Verdicts

DIM, SIDE = 6, 32
ABOUT = {"digest": "abc", "dim": str(DIM), "model": "test"}
ADDED = pa.schema(
    [
        pa.field("embedding", pa.list_(pa.float32(), DIM), metadata=ABOUT),
        pa.field("thumbnail", pa.binary(SIDE * SIDE)),
    ]
)
COSINE = SemanticDeduplicationStage(confirm=None)


def decided(
    folder: Path, stage: SemanticDeduplicationStage, samples: Sequence[dict[str, Any]], **how: Any
) -> tuple[Rows, Verdicts]:
    parts = make_parts(folder, samples, added=ADDED, per_part=how.pop("per_part", 1000))
    scope = make_scope(folder, parts, added=ADDED, **how)
    stage.check(scope.columns)
    rows = run_rounds(stage, scope, folder / "rounds")
    return rows, stage.decide(rows)


def told(rows: Rows, verdicts: Verdicts) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return for each key that goes the key of the one that stays, and the evidence."""
    keys = rows.take(verdicts.drop, ("original_key",))["original_key"].to_pylist()
    if not len(verdicts.drop):
        return {}
    assert verdicts.duplicate_of is not None
    assert verdicts.evidence is not None
    evidence = map(json.loads, verdicts.evidence.to_pylist())
    stays = [each.rpartition("-")[0] for each in verdicts.duplicate_of.to_pylist()]
    return dict(zip(keys, zip(stays, evidence, strict=True), strict=True))


def ident(key: str) -> str:
    """Return an id, which ends with a digest."""
    return f"{key}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def sample(key: str, vector: Sequence[float] | None, **more: Any) -> dict[str, Any]:
    padded = None if vector is None else [*vector, *[0.0] * (DIM - len(vector))]
    return {"image_id": ident(key), "original_key": key, "embedding": padded, **more}


def at(degrees: float, plane: int = 0) -> list[float]:
    """Return a direction in a plane; of different planes no two are alike."""
    angle = np.deg2rad(degrees)
    return [0.0] * (2 * plane) + [float(np.cos(angle)), float(np.sin(angle))]


def picture(seed: int, *, size: int = SIDE) -> bytes:
    """Return the thumbnail of a picture with soft shapes, unlike any of another seed."""
    rng = np.random.default_rng(seed)
    noise = Image.fromarray(rng.integers(0, 256, (6, 6), np.uint8))
    return noise.resize((size, size), Image.Resampling.BICUBIC).tobytes()


def resaved(pixels: bytes) -> bytes:
    image = Image.frombytes("L", (SIDE, SIDE), pixels)
    file = io.BytesIO()
    image.save(file, "jpeg", quality=60)
    return Image.open(file).tobytes()


def test_a_chain_of_images_seven_degrees_apart_is_not_one_group(tmp_path):
    """Each is a duplicate of its neighbours alone; to keep the first only loses two images."""
    chain = [sample(f"{n}", at(7 * n), width=100 - n) for n in range(4)]
    rows, verdicts = decided(tmp_path, dataclasses.replace(COSINE, eps=0.01), chain)
    found = told(rows, verdicts)
    assert {key: stays for key, (stays, _) in found.items()} == {"1": "0", "3": "2"}
    cosine = round(float(np.cos(np.deg2rad(7))), 6)
    wanted = {"cosine": pytest.approx(cosine, abs=1e-6), "eps": 0.01, "method": "semantic"}
    assert found["1"][1] == wanted
    assert verdicts.reason == "semantic_duplicate"
    assert any("alone decided" in note for note in verdicts.notes)


def test_cosine_alone_drops_nothing_where_pictures_differ(tmp_path):
    same, other = picture(1), picture(2)
    samples = [
        sample("big", at(0), thumbnail=same, width=500),
        sample("resaved", at(20), thumbnail=resaved(same), width=400),
        sample("mirrored", at(-20), thumbnail=mirrored(same), width=300),
        sample("another", at(0), thumbnail=other, width=200),
        sample("far", at(90), thumbnail=same, width=100),
        sample("unknown", at(0), thumbnail=None, width=90),
    ]
    rows, verdicts = decided(tmp_path, SemanticDeduplicationStage(), samples)
    found = told(rows, verdicts)
    assert {key: stays for key, (stays, _) in found.items()} == {
        "resaved": "big", "mirrored": "big",
    }  # fmt: skip
    for _, evidence in found.values():
        assert evidence["method"] == "semantic+ncc"
        assert evidence["eps"] == 0.55
        assert evidence["cosine"] == pytest.approx(np.cos(np.deg2rad(20)), abs=1e-6)
        assert evidence["ncc"] >= 0.85
    assert any("confirmed" in note for note in verdicts.notes)
    alone = dataclasses.replace(COSINE, eps=0.5)
    rows, verdicts = decided(tmp_path / "alone", alone, samples)
    assert set(told(rows, verdicts)) == {"resaved", "mirrored", "another", "unknown"}


def mirrored(pixels: bytes) -> bytes:
    return np.frombuffer(pixels, np.uint8).reshape(SIDE, SIDE)[:, ::-1].tobytes()


def test_which_one_stays_is_the_policys_choice(tmp_path):
    samples = [
        sample("large", at(0), width=900, height=900, image_size=10),
        sample("heavy", at(1), width=100, height=100, image_size=999),
        sample("last", at(2), width=10, height=10, image_size=5),
    ]

    def stays(name: str, **options: Any) -> set[str]:
        stage = SemanticDeduplicationStage(confirm=None, **options)
        rows, verdicts = decided(tmp_path / name, stage, samples)
        gone = set(told(rows, verdicts))
        assert len(gone) == 2
        return {"large", "heavy", "last"} - gone

    assert stays("1") == {"large"}
    assert stays("2", keep=("file_size",)) == {"heavy"}
    assert stays("3", keep=("resolution asc",)) == {"last"}
    assert stays("4", which_to_keep="easy") == {"heavy"}  # the middle one
    assert stays("5", which_to_keep="hard") in ({"large"}, {"last"})
    random = [stays(f"r{seed}", which_to_keep="random", seed=seed) for seed in range(12)]
    assert len({min(each) for each in random}) > 1
    assert stays("again", which_to_keep="random", seed=3) == random[3]


def test_what_has_no_direction_takes_no_part_and_is_counted(tmp_path):
    odd = [None, [0.0], [float("nan")], [float("inf")]]
    samples = [sample(f"odd{n}{m}", each) for n, each in enumerate(odd) for m in range(2)]
    samples += [sample("one", at(0), width=200), sample("two", at(0))]
    rows, verdicts = decided(tmp_path, COSINE, samples)
    assert set(told(rows, verdicts)) == {"two"}
    assert any(note.startswith("8 images without a vector") for note in verdicts.notes)


@pytest.mark.parametrize("confirm", ["ncc", None])
@pytest.mark.parametrize("action", ["drop", "group"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_and_many_clusters_are_fine(tmp_path, count, action, confirm):
    stage = SemanticDeduplicationStage(confirm=confirm, action=action, n_clusters=50)
    samples = [sample(f"{n}", at(0, n), thumbnail=picture(n)) for n in range(count)]
    rows, verdicts = decided(tmp_path, stage, samples)
    assert len(rows) == count
    assert len(verdicts.drop) == 0
    assert {name: column.type for name, column in verdicts.columns.items()} == {
        field.name: field.type for field in stage.adds()
    }


@pytest.mark.parametrize("confirm", ["ncc", None])
def test_of_many_equal_images_one_stays(tmp_path, confirm):
    stage = SemanticDeduplicationStage(confirm=confirm, n_clusters=4)
    black = bytes(SIDE * SIDE)
    equal = [sample(f"{n:03d}", at(30), thumbnail=black) for n in range(300)]
    rows, verdicts = decided(tmp_path, stage, equal)
    found = told(rows, verdicts)
    assert len(found) == 299
    assert {stays for stays, _ in found.values()} == {f"{min(set(keys(equal)) - set(found))}"}


def keys(samples: Sequence[dict[str, Any]]) -> list[str]:
    return [each["original_key"] for each in samples]


@pytest.mark.parametrize("confirm", ["ncc", None])
def test_of_many_like_images_whose_lists_are_cut_what_stays_is_settled(
    tmp_path, monkeypatch, confirm
):
    monkeypatch.setitem(semantic.LISTED, confirm, (1, 1) if confirm else (1, 0))
    rng = np.random.default_rng(0)
    samples = [
        sample(f"{n:03d}", (at(0) + 0.1 * rng.standard_normal(2)).tolist(), thumbnail=picture(0))
        for n in range(120)
    ]
    stage = SemanticDeduplicationStage(confirm=confirm, eps=0.002)
    rows, verdicts = decided(tmp_path, stage, samples)
    check_invariants(samples, stage, rows, verdicts)


def check_invariants(
    samples: Sequence[dict[str, Any]],
    stage: SemanticDeduplicationStage,
    rows: Rows,
    verdicts: Verdicts,
) -> None:
    """Compare with a plain loop over the images in order of rank."""
    found = {key: stays for key, (stays, _) in told(rows, verdicts).items()}
    assert found == plainly(samples, stage)


def plainly(samples: Sequence[dict[str, Any]], stage: SemanticDeduplicationStage) -> dict[str, str]:
    """Return what goes with what it is like: the best that stays; by resolution, then id."""
    least = stage._least()
    kept: list[dict[str, Any]] = []
    found = {}
    for each in sorted(samples, key=lambda one: (-one.get("width", 64), one["image_id"])):
        if each.get("problem") or each["embedding"] is None:
            continue
        one = np.array(each["embedding"], np.float32).astype(np.float64)
        for better in kept:
            other = np.array(better["embedding"], np.float32).astype(np.float64)
            cosine = min(one @ other / np.sqrt((one @ one) * (other @ other)), 1)
            if cosine >= least and (not stage.confirm or alike(each, better, stage)):
                found[each["original_key"]] = better["original_key"]
                break
        else:
            kept.append(each)
    return found


def alike(one: dict[str, Any], other: dict[str, Any], stage: SemanticDeduplicationStage) -> bool:
    pixels = np.frombuffer(one["thumbnail"] + other["thumbnail"], np.uint8).reshape(2, -1)
    first, second = np.array([0]), np.array([1])
    threshold = stage.ncc_threshold
    return bool(template.ncc(pixels, first, second, threshold)[0] >= threshold)


def test_images_with_one_vector_may_be_of_different_pictures(tmp_path):
    """Then the best of them stands for none of the others."""
    samples = [
        sample("a", at(0), width=900, thumbnail=picture(1)),
        sample("b", at(0), width=800, thumbnail=picture(2)),
        sample("c", at(5), width=700, thumbnail=resaved(picture(2))),
    ]
    rows, verdicts = decided(tmp_path, SemanticDeduplicationStage(), samples)
    assert {key: stays for key, (stays, _) in told(rows, verdicts).items()} == {"c": "b"}


PICTURES = [picture(0), resaved(picture(0)), mirrored(picture(0)), picture(1), picture(2)]


def crowd(count: int, seed: int) -> list[dict[str, Any]]:
    """Return images that are near to many others."""
    rng = np.random.default_rng(seed)
    middles = rng.standard_normal((4, DIM))
    return [
        sample(
            f"{n:02d}",
            (middles[rng.integers(0, 4)] + 0.3 * rng.integers(-1, 2, DIM)).tolist(),
            width=int(rng.integers(1, 4)) * 10,
            thumbnail=PICTURES[rng.integers(0, len(PICTURES))],
            original_path=f"{rng.integers(0, 3)}.tar",
            problem="decode_failed" if rng.random() < 0.1 else None,
        )
        for n in range(count)
    ]


@settings(max_examples=12, deadline=None)
@given(
    count=st.integers(2, 40),
    seed=st.integers(0, 2**16),
    confirm=st.sampled_from(["ncc", None]),
    eps=st.sampled_from([0.03, 0.2]),
)
def test_every_invariant_holds_as_by_brute_force(
    count: int, seed: int, confirm, eps: float, tmp_path_factory: pytest.TempPathFactory
):
    samples = crowd(count, seed)
    folder = tmp_path_factory.mktemp("rows")
    stage = SemanticDeduplicationStage(confirm=confirm, eps=eps, keep=("resolution",))
    ordered = sorted(samples, key=lambda each: each["original_path"])
    rows, verdicts = decided(folder / "1", stage, ordered)
    check_invariants(samples, stage, rows, verdicts)

    gone = set(told(rows, verdicts))
    left = [each for each in ordered if each["original_key"] not in gone]
    _, again = decided(folder / "2", stage, left)
    assert len(again.drop) == 0  # a second run drops nothing


@settings(max_examples=6, deadline=None)
@given(
    count=st.integers(2, 40),
    seed=st.integers(0, 2**16),
    per_part=st.integers(1, 9),
    action=st.sampled_from(["drop", "group"]),
)
def test_neither_order_nor_parts_nor_tasks_change_anything(
    count: int,
    seed: int,
    per_part: int,
    action,
    tmp_path_factory: pytest.TempPathFactory,
):
    samples = crowd(count, seed)
    folder = tmp_path_factory.mktemp("rows")
    stage = SemanticDeduplicationStage(action=action, n_clusters=5, eps=0.2, keep=("resolution",))
    rows, verdicts = decided(folder / "1", stage, samples, seed=1)
    turned = [samples[n] for n in np.random.default_rng(seed).permutation(len(samples))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_SLICE_BYTES", 4 * DIM * 7)  # seven rows to a task
        patch.setattr(search, "_TASK_PRODUCTS", 1.0)  # a cell to a task
        other_rows, other = decided(folder / "2", stage, turned, seed=1, per_part=per_part)
    if action == "drop":
        assert told(rows, verdicts) == told(other_rows, other)
    else:
        assert groups(rows, verdicts) == groups(other_rows, other)
    assert verdicts.notes == other.notes


def groups(rows: Rows, verdicts: Verdicts) -> dict[str, str | None]:
    ids = rows.take(np.arange(len(rows)), ("image_id",))["image_id"].to_pylist()
    found = verdicts.columns["semantic_group"].to_pylist()
    return {
        one.rpartition("-")[0]: None if group is None else group.rpartition("-")[0]
        for one, group in zip(ids, found, strict=True)
    }


@pytest.mark.parametrize("first", [1, 8])
def test_a_group_is_all_that_is_linked_and_nothing_is_dropped(tmp_path, monkeypatch, first):
    monkeypatch.setitem(semantic.LISTED, None, (first, 0))
    chain = [sample(f"{9 - n}", at(7 * n)) for n in range(4)]
    star = [sample("m", at(0, 1), width=1)]
    star += [sample(f"s{n}", at(sign * 8, 1)) for n, sign in enumerate((-1, 1))]
    samples = [*chain, *star, sample("alone", at(0, 2)), sample("none", None)]
    stage = dataclasses.replace(COSINE, action="group", eps=0.01)
    rows, verdicts = decided(tmp_path, stage, samples)
    found = groups(rows, verdicts)
    assert {key: found[key] for key in keys(samples)} == {
        **dict.fromkeys("9876", "6"),
        **dict.fromkeys(("m", "s0", "s1"), "m"),
        "alone": None,
        "none": None,
    }
    assert len(verdicts.drop) == 0
    (field,) = stage.adds()
    assert field.metadata[b"role"] == b"duplicate_group"


def planted(count: int, seed: int, dim: int = 16) -> tuple[np.ndarray, int]:
    """Return vectors of all directions, of which each of the last ones is like one of the first."""
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, dim))
    copies = count // 5
    near = vectors[:copies] + 0.3 * rng.standard_normal((copies, dim))
    return np.concatenate([vectors, near]).astype(np.float32), copies


def test_pairs_in_different_cells_are_found(tmp_path):
    vectors, copies = planted(1500, 0)
    kind = pa.schema([pa.field("embedding", pa.list_(pa.float32(), vectors.shape[1]))])
    samples = [
        {"image_id": ident(f"{n:05d}"), "embedding": each, "width": len(vectors) - n}
        for n, each in enumerate(vectors.tolist())
    ]
    parts = make_parts(tmp_path, samples, added=kind)
    scope = make_scope(tmp_path, parts, added=kind)

    def dropped(**options: Any) -> set[int]:
        stage = SemanticDeduplicationStage(confirm=None, eps=0.08, **options)
        rows = run_rounds(stage, scope, tmp_path / str(options))
        return set(stage.decide(rows).drop.tolist())

    every = dropped(n_clusters=1)
    assert len(every) > 0.85 * copies
    blind = dropped(n_clusters=60, n_probe=0)
    mended = dropped(n_clusters=60)
    assert len(blind & every) < 0.95 * len(every)  # what is lost without a look at other cells
    assert len(mended & every) >= 0.99 * len(every)


def earlier(path: Path, samples: Sequence[dict[str, Any]], about: dict[str, str] = ABOUT) -> str:
    table = {
        "image_id": pa.array([each["image_id"] for each in samples], pa.string()),
        "embedding": pa.array([each["embedding"] for each in samples], ADDED[0].type),
        "thumbnail": pa.array([each.get("thumbnail") for each in samples], ADDED[1].type),
    }
    fields = [pa.field("image_id", pa.string()), ADDED[0].with_metadata(about), ADDED[1]]
    pq.write_table(pa.table(list(table.values()), schema=pa.schema(fields)), path)
    return str(path)


@pytest.mark.parametrize("confirm", ["ncc", None])
def test_what_an_earlier_dataset_has_goes(tmp_path, confirm):
    old = [
        sample("old1", at(0), thumbnail=picture(1)),
        sample("old1", at(0), thumbnail=picture(1)),  # the same id twice
        sample(
            "old2", at(1), thumbnail=picture(1)
        ),  # like the one before: it is no concern of ours
        sample("old3", None),
    ]
    new = [
        sample("new1", at(2), thumbnail=resaved(picture(1)), width=9000),
        sample("new2", at(0, 1), thumbnail=picture(2)),
        sample("new3", at(0, 1), thumbnail=picture(2), width=32),
        sample("old1", at(0), thumbnail=picture(1)),  # is in it already
    ]
    path = earlier(tmp_path / "old.parquet", old)
    stage = SemanticDeduplicationStage(confirm=confirm, against=path)
    rows, verdicts = decided(tmp_path / "new", stage, new)
    found = {key: stays for key, (stays, _) in told(rows, verdicts).items()}
    assert found == {"new1": "old1", "new3": "new2", "old1": "old1"}
    assert len(stage.digests()) > 0


def test_an_earlier_dataset_of_another_model_is_refused(tmp_path):
    stage = SemanticDeduplicationStage(
        against=earlier(tmp_path / "old.parquet", [sample("a", at(0))], {**ABOUT, "digest": "xyz"})
    )
    with pytest.raises(PlanError, match="another model"):
        stage.check(make_scope(tmp_path, [], added=ADDED).columns)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"eps": 1.0}, "eps is 1.0"),
        ({"eps": -0.1}, "eps is -0.1"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"n_clusters": 0}, "n_clusters is 0"),
        ({"n_probe": -1}, "n_probe is -1"),
        ({"ncc_threshold": 0.0}, "ncc_threshold is 0"),
        ({"keep": ("resolution",), "which_to_keep": "hard"}, "which_to_keep"),
        ({"action": "group", "merge": ("caption",)}, "drops nothing"),
        ({"confirm": "ssim"}, "confirm"),
        ({"which_to_keep": "worst"}, "which_to_keep"),
    ],
)
def test_what_makes_no_sense_is_refused(options, told):
    with pytest.raises(PlanError, match=told):
        SemanticDeduplicationStage(**options)


def test_columns_that_do_not_fit_are_refused():
    columns = make_columns(ADDED)
    SemanticDeduplicationStage().check(columns)
    with pytest.raises(PlanError, match="there are these: embedding"):
        SemanticDeduplicationStage(column="other").check(columns)
    with pytest.raises(PlanError, match="no column 'shine'"):
        SemanticDeduplicationStage(keep=("shine",)).check(columns)
    wrong = pa.schema([ADDED[0], pa.field("thumbnail", pa.string())])
    with pytest.raises(PlanError, match="ThumbnailStage"):
        SemanticDeduplicationStage().check(make_columns(wrong))


def make_columns(added: pa.Schema) -> pa.Schema:
    return sample_schema([added])
