"""Index files and other formats: made once, whole, found again, and gone when nobody wants them."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pixsieve.engine.output import clean
from pixsieve.errors import OutputConflictError, PlanError
from pixsieve.export.formats import FORMATS
from pixsieve.export.formats.base import Format
from pixsieve.export.indexes import INDEXES
from pixsieve.export.indexes.base import Index
from pixsieve.pipeline import Pipeline
from pixsieve.stages import ImageReaderStage, ImageWriterStage
from pixsieve.storage import LocalStorage
from pixsieve.testing import corpus as kit
from pixsieve.testing import images
from pixsieve.verify import verify

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pixsieve.engine.result import RunResult
    from pixsieve.export.finished import About, Dataset, Members, Shard
    from pixsieve.export.indexes.base import Desk


class Places(Index):
    """Where members lie, beside each tar; a table of contents and a big file for the whole."""

    name = "places"
    suffix = ".places"
    files = ("contents.txt", ".places/big.bin")

    def of_shard(self, members: Members) -> bytes:
        lines = (
            f"{name} {offset} {size}"
            for name, offset, size in zip(
                members.names, members.offsets, members.sizes, strict=True
            )
        )
        return "\n".join([*lines, f"end {members.end}"]).encode()

    def of_dataset(self, dataset: Dataset, desk: Desk) -> dict[str, bytes | Path]:
        big = desk.scratch / "big"
        big.write_text("".join(shard.tar.sha256 for shard in dataset.shards))
        text = f"{dataset.samples} {dataset.card.get('license')} {dataset.contents.images}\n"
        return {"contents.txt": text.encode(), ".places/big.bin": big}

    def is_edited(self, data: bytes) -> bool:
        return b"by hand" in data


class Digests(Format):
    """The digest of every image, a file for each shard and one for the whole."""

    name = "digests"
    own = r"[0-9]+-of-[0-9]+\.txt|all\.json"
    wrote: ClassVar[list[str]] = []

    def write_shard(self, about: About, shard: Shard, folder: Path) -> list[str]:
        name = f"{shard.split_number}-of-{shard.split_shards}.txt"
        self.wrote.append(name)
        with LocalStorage().create(str(folder / name)) as sink:
            for row, data in about.images(shard, ["key", "sha256"]):
                found = hashlib.sha256(data).hexdigest()
                assert found == row["sha256"]
                sink.write(f"{row['key']} {found}\n".encode())
        return [name]

    def finish(self, dataset: Dataset, written: Sequence[Sequence[str]], folder: Path) -> list[str]:
        assert len(written) == len(dataset.shards)
        with LocalStorage().create(str(folder / "all.json")) as sink:
            sink.write(json.dumps(written).encode())
        return ["all.json"]


class Loose(Digests):
    name = "loose"

    def is_listed(self, name: str) -> bool:
        return name == "all.json"


class Absent(Digests):
    name = "absent"

    def check(self) -> None:
        msg = "the format 'absent' needs a library: pip install 'pixsieve[absent]'"
        raise PlanError(msg)


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    for known, each in (
        (INDEXES, Places()),
        (FORMATS, Digests()),
        (FORMATS, Loose()),
        (FORMATS, Absent()),
    ):
        monkeypatch.setitem(known, each.name, each)  # type: ignore[arg-type]
    Digests.wrote.clear()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(images.photo(seed=number))
        (folder / f"{number}.txt").write_text(f"picture {number}")
    return folder


def export(photos: Path, **options: Any) -> RunResult:
    options = {"indexes": ("places",), "formats": ("digests",)} | options
    pipeline = Pipeline("extras")
    pipeline.add_stage(ImageReaderStage(str(photos)))
    pipeline.add_stage(
        ImageWriterStage(output_dir=str(photos.parent / "out"), images_per_tar=2, **options)
    )
    return kit.run_pipeline(pipeline)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a dataset but the working state."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".pixsieve" not in path.parts
    }


def test_offsets_are_those_of_the_tar(photos: Path, tmp_path: Path):
    result = export(photos)
    for name in result.shards:
        tar = (tmp_path / "out" / name).read_bytes()
        path = (tmp_path / "out" / name).with_suffix(".places")
        *lines, end = [line.split() for line in path.read_text().splitlines()]
        assert [line[0].partition(".")[2] for line in lines] == ["jpg", "txt"] * (len(lines) // 2)
        for member, offset, size in lines:
            header = tar[int(offset) - 512 : int(offset)]
            assert header.rstrip(b"\0").startswith(member.encode())
            assert int(header[124:135], 8) == int(size)
        assert tar[int(end[1]) :] == bytes(len(tar) - int(end[1]))


def test_the_manifest_lists_them_and_verify_agrees(photos: Path, tmp_path: Path):
    export(photos)
    out = tmp_path / "out"
    manifest = json.loads((out / "manifest.json").read_bytes())
    listed = {file["name"]: file["sha256"] for file in manifest["files"]}
    files = tree(out)
    assert files.keys() - listed.keys() == {"manifest.json"}
    assert all(hashlib.sha256(files[name]).hexdigest() == listed[name] for name in listed)
    assert files["contents.txt"] == b"5 None {'jpg': 5}\n"
    assert json.loads(files["digests/all.json"]) == [[f"{n}-of-3.txt"] for n in range(3)]
    report = verify(out)
    assert not report.findings, report.to_text()


def test_a_format_says_what_the_manifest_lists(photos: Path, tmp_path: Path):
    export(photos, formats=("loose",))
    out = tmp_path / "out"
    listed = [f["name"] for f in json.loads((out / "manifest.json").read_bytes())["files"]]
    assert [name for name in listed if name.startswith("loose/")] == ["loose/all.json"]
    (out / "loose" / "0-of-3.txt").unlink()
    assert not export(photos, formats=("loose",)).did_nothing  # unlisted, but looked after
    assert (out / "loose" / "0-of-3.txt").exists()


def test_a_second_run_does_nothing_and_mends_what_is_damaged(photos: Path, tmp_path: Path):
    export(photos)
    out = tmp_path / "out"
    before = tree(out)
    Digests.wrote.clear()
    assert export(photos).did_nothing
    assert Digests.wrote == []
    (out / "digests" / "1-of-3.txt").write_text("damaged")
    (out / "contents.txt").unlink()
    (next(out.glob("*-000002.places"))).write_text("damaged")
    assert not export(photos).did_nothing
    assert Digests.wrote == ["1-of-3.txt"]
    assert tree(out) == before


def test_without_the_working_state_the_same_bytes_are_made_again(photos: Path, tmp_path: Path):
    export(photos)
    out = tmp_path / "out"
    before = tree(out)
    clean(str(out))
    for number in (1, 7):
        (out / "digests" / f"{number}-of-9.txt").write_text("of another export")
    export(photos)
    assert tree(out) == before


def test_files_of_others_in_its_folders_stay_whatever_is_chosen(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    export(photos)
    mine = [out / "digests" / "mine.txt", out / "digests" / "deep" / "a.jpg", out / ".places" / "x"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    clean(str(out))
    export(photos)
    assert [path.read_text() for path in mine] == ["mine"] * 3
    export(photos, indexes=(), formats=())
    assert [path.read_text() for path in mine] == ["mine"] * 3
    assert not (out / "digests" / "all.json").exists()


def test_of_a_folder_that_indexes_share_only_what_is_wanted_stays(photos: Path, tmp_path: Path):
    meta = tmp_path / "out" / ".nv-meta"
    export(photos, indexes=("energon", "energon_sqlite"), formats=())
    (meta / "notes.txt").write_text("mine")
    assert (meta / "index.sqlite").exists()
    export(photos, indexes=("energon",), formats=())
    assert sorted(path.name for path in meta.iterdir()) == [
        ".info.json", "dataset.yaml", "index.uuid", "notes.txt", "split.yaml",
    ]  # fmt: skip


def test_they_can_be_chosen_anew_and_the_tars_stay(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    export(photos, indexes=(), formats=())
    bare = tree(out)
    assert not any("places" in name or "digests" in name for name in bare)
    times = {path: path.stat().st_mtime_ns for path in (*out.glob("*.tar"), *out.glob("*.parquet"))}
    export(photos, card={"license": "cc0-1.0"})
    assert (out / "contents.txt").read_text() == "5 cc0-1.0 {'jpg': 5}\n"
    assert (out / "digests" / "all.json").exists()
    assert not verify(out).findings
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    export(photos, indexes=(), formats=())
    assert tree(out) == bare


def test_an_unfinished_run_of_another_choice_leaves_nothing_behind(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    export(photos)
    (out / "manifest.json").unlink()
    export(photos, indexes=(), formats=())
    reference = tree(out)
    shutil.rmtree(out)
    export(photos, indexes=(), formats=())
    assert tree(out) == reference


@pytest.mark.parametrize("name", ["contents.txt", "digests", ".places"])
def test_what_somebody_else_put_there_is_not_written_over(name: str, photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    if "." in name[1:]:
        out.mkdir()
        (out / name).write_text("mine")
    else:
        (out / name).mkdir(parents=True)
        (out / name / "file").write_text("mine")
    before = tree(out)
    with pytest.raises(OutputConflictError, match=f"such as {name}"):
        export(photos)
    assert tree(out) == before
    export(photos, indexes=(), formats=())
    with pytest.raises(OutputConflictError, match=f"{name} is in the way"):
        export(photos)
    assert before.items() <= tree(out).items()


def test_what_was_changed_by_hand_is_not_written_over(photos: Path, tmp_path: Path):
    export(photos)
    path = tmp_path / "out" / "contents.txt"
    path.write_text("by hand")
    with pytest.raises(OutputConflictError, match=r"contents\.txt was changed by hand.*card"):
        export(photos, card={"license": "mit"})
    assert path.read_text() == "by hand"


@pytest.mark.parametrize("wanted", [("places",), ()])
def test_of_an_index_file_that_is_not_as_it_was_written_a_copy_is_kept(
    photos: Path, tmp_path: Path, wanted: tuple[str, ...]
):
    export(photos)
    out = tmp_path / "out"
    before = (out / ".places" / "big.bin").read_bytes()
    (out / ".places" / "big.bin").write_text("mine")
    result = export(photos, indexes=wanted)
    kept = out / ".pixsieve" / "replaced" / ".places" / "big.bin"
    assert kept.read_text() == "mine"
    assert any(str(kept) in note for note in result.notes)
    if wanted:
        assert (out / ".places" / "big.bin").read_bytes() == before
    assert not export(photos, indexes=wanted).notes


def test_what_stands_in_a_shared_folder_is_not_written_over(photos: Path, tmp_path: Path):
    export(photos, indexes=("energon",), formats=())
    database = tmp_path / "out" / ".nv-meta" / "index.sqlite"
    database.write_text("of another tool")
    with pytest.raises(OutputConflictError, match=r"index\.sqlite is in the way"):
        export(photos, indexes=("energon", "energon_sqlite"), formats=())
    assert database.read_text() == "of another tool"


def test_a_file_of_that_name_is_nobodys_business_where_it_is_not_wanted(
    photos: Path, tmp_path: Path
):
    path = tmp_path / "out" / "contents.txt"
    path.parent.mkdir()
    path.write_text("by hand")
    for _ in range(2):
        export(photos, indexes=(), formats=())
    assert path.read_text() == "by hand"


def test_a_missing_library_is_told_before_any_work(photos: Path, tmp_path: Path):
    with pytest.raises(PlanError, match=r"pip install 'pixsieve\[absent\]'"):
        export(photos, formats=("absent",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"indexes": ("place",)}, r"indexes names 'place'.*places"),
        ({"formats": ("digest",)}, r"formats names 'digest'.*digests"),
        ({"indexes": ("energon_sqlite",)}, r"'energon_sqlite' without 'energon'"),
        ({"card": {"licence": "mit"}}, r"card has 'licence'.*license"),
    ],
)
def test_an_unknown_name_is_told_with_the_known_ones(
    photos: Path, options: dict[str, Any], message: str
):
    with pytest.raises(PlanError, match=message):
        export(photos, **options)
