"""A repair makes a sound set of every planted fault, and says what it could not save."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pixsieve.cli import main
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import SourceError, SourceNotFoundError, UsageError
from pixsieve.pipeline import Pipeline
from pixsieve.repair import repair as repair_with_workers
from pixsieve.stages import ImageReaderStage, ImageWriterStage
from pixsieve.storage import tables
from pixsieve.testing import images, planted
from pixsieve.testing.corpus import run_pipeline, write_files
from pixsieve.testing.faults import tree
from pixsieve.testing.planted import PER_TAR, SAMPLES
from pixsieve.verify import verify as verify_with_workers

if TYPE_CHECKING:
    from pathlib import Path

    from pixsieve.repair import RepairReport

verify = functools.partial(verify_with_workers, workers=0)
repair = functools.partial(repair_with_workers, executor=InlineExecutor())

TEXTS = {"text-encoding", "json-invalid"}
"""What a repair leaves as it is: the bytes of texts, with a warning by verify."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a repair makes of a fault; nothing else is lost, mended or told.

    Attributes:
        lost: The reason for each lost sample.
        nameless: How many are lost of which nobody knows the keys.
        corrected: Values that were wrong.
        rows_made: Samples without a row.
        renamed: Samples whose key changes.
        doubtful: Samples of which something is in doubt.
        more: Samples that nobody stated.
        missing: Shards that are not there.
        left_out: Tars that are not the set's.
    """

    lost: tuple[str, ...] = ()
    nameless: int = 0
    corrected: dict[str, int] = field(default_factory=dict)
    rows_made: int = 0
    renamed: int = 0
    doubtful: int = 0
    more: int = 0
    missing: int = 0
    left_out: int = 0


OUTCOMES = {
    "row_missing": Outcome(rows_made=1),
    "width_off_by_one": Outcome(corrected={"width": 1}),
    "member_offset_off_by_one": Outcome(corrected={"member_offset": 1}),
    "member_size_off_by_one": Outcome(corrected={"member_size": 1}),
    "size_of_a_caption_off_by_one": Outcome(corrected={"member_sizes": 1}),
    "sha256_wrong": Outcome(corrected={"sha256": 1}),
    "captions_swapped_in_the_sidecar": Outcome(corrected={"caption": 2}),
    "split_of_another": Outcome(corrected={"split": 1}),
    "sidecar_missing": Outcome(rows_made=PER_TAR),
    "sidecar_cut": Outcome(rows_made=PER_TAR),
    "tar_cut_between_samples": Outcome(lost=("not_in_tar",) * 2),
    "tar_cut_inside_a_member": Outcome(lost=("not_in_tar", "source_truncated")),
    "a_header_damaged": Outcome(lost=("missing_image",)),
    "captions_swapped_in_the_tar": Outcome(lost=("caption_changed",) * 2),
    "a_member_twice": Outcome(lost=("duplicate_member",)),
    "a_sample_without_image": Outcome(lost=("missing_image",)),
    "a_sample_more": Outcome(rows_made=1, more=1),
    "a_name_that_needs_pax": Outcome(renamed=1),
    "a_long_name_of_gnu_tar": Outcome(renamed=1),
    "an_upper_case_extension": Outcome(corrected={"extension": 1}),
    "an_extension_of_another_format": Outcome(corrected={"extension": 1}),
    "a_key_in_two_shards": Outcome(renamed=1),
    "a_key_in_another_case": Outcome(renamed=1),
    "an_image_cut": Outcome(lost=("truncated_image",)),
    "an_image_replaced": Outcome(lost=("image_changed",)),
    "tar_missing": Outcome(lost=("not_in_tar",) * PER_TAR, missing=1),
    "shard_missing": Outcome(nameless=PER_TAR, missing=1),
    "shard_empty": Outcome(nameless=PER_TAR),
    "a_tar_more": Outcome(left_out=1),
}
"""Of those that are not here nothing is lost, and nothing but files that are made anew is wrong."""

AGREED = {
    "captions_swapped_in_the_sidecar": Outcome(doubtful=2),
    "captions_swapped_in_the_tar": Outcome(doubtful=2),
}
"""Those that come out otherwise where no digest tells which file was changed."""


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A sound export without splits, and one with two."""
    return {
        splits: planted.export(tmp_path_factory.mktemp("set"), splits=splits)
        for splits in (False, True)
    }


def rows_of(folder: Path) -> pa.Table:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([tables.read_table(str(path)) for path in paths])


def by_key(folder: Path, column: str) -> dict[str, Any]:
    rows = rows_of(folder)
    return dict(zip(rows["key"].to_pylist(), rows[column].to_pylist(), strict=True))


def outcome(report: RepairReport) -> Outcome:
    gone = len(report.lost) + sum(report.nameless.values())
    assert report.expected is not None
    return Outcome(
        lost=tuple(sorted(each.reason for each in report.lost)),
        nameless=sum(report.nameless.values()),
        corrected=report.corrected,
        rows_made=report.rows_made,
        renamed=len(report.renamed),
        doubtful=len(report.doubtful),
        more=report.kept + gone - report.expected,
        missing=len(report.missing),
        left_out=len(report.left_out),
    )


@pytest.mark.parametrize("fault", planted.FAULTS.values(), ids=planted.FAULTS)
@pytest.mark.parametrize("agreeing", [False, True], ids=["plain", "agreeing"])
def test_a_planted_fault_is_mended_and_accounted_for(
    fault: planted.Fault, agreeing: bool, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder, new = shutil.copytree(sets[fault.splits], tmp_path / "out"), tmp_path / "new"
    keys = by_key(folder, "sha256")
    fault.plant(folder)
    if agreeing:
        planted.agree(folder)
    before = tree(folder)
    report = repair(folder, new)
    assert tree(folder) == before
    found = verify(new)
    assert found.ok, found.to_text()
    assert {finding.rule for finding in found.findings} <= TEXTS
    expected = OUTCOMES.get(fault.name, Outcome())
    if agreeing:
        expected = AGREED.get(fault.name, expected)
    assert outcome(report) == expected
    assert report.expected == SAMPLES
    saved = by_key(new, "sha256")
    gone = len(expected.lost) + expected.nameless
    same = SAMPLES - gone - expected.renamed - (2 if fault.name == "a_key_in_another_case" else 0)
    assert len(keys.items() & saved.items()) >= same
    assert len(saved) == SAMPLES - gone + expected.more


def test_a_sound_set_comes_out_as_it_was(sets: dict[bool, Path], tmp_path: Path) -> None:
    folder, new = sets[True], tmp_path / "new"
    report = repair(folder, new)
    assert outcome(report) == Outcome()
    assert report.kind == "pixsieve"
    for column in ("sha256", "caption", "split", "members", "member_sizes", "number"):
        assert by_key(new, column) == by_key(folder, column)
    assert by_key(new, "earlier_image_id") == by_key(folder, "image_id")
    assert by_key(new, "earlier_original_path") == by_key(folder, "original_path")
    assert set(by_key(new, "repaired").values()) == {None}
    for old, made in zip(planted.shards(folder), planted.shards(new), strict=True):
        assert old.read_bytes() == made.read_bytes()


def test_a_repair_again_does_nothing_and_changes_nothing(
    sets: dict[bool, Path], tmp_path: Path
) -> None:
    first = repair(sets[False], tmp_path / "new")
    before = tree(tmp_path / "new")
    assert repair(sets[False], tmp_path / "new") == first
    assert tree(tmp_path / "new") == before
    assert repair(sets[False], tmp_path / "other").kept == SAMPLES
    assert tree(tmp_path / "other") == before


def test_what_was_repaired_can_be_repaired(sets: dict[bool, Path], tmp_path: Path) -> None:
    repair(sets[False], tmp_path / "one")
    report = repair(tmp_path / "one", tmp_path / "two")
    assert outcome(report) == Outcome()
    assert verify(tmp_path / "two").findings == ()
    rows = by_key(tmp_path / "two", "earlier_image_id")
    assert rows == by_key(sets[False], "image_id")
    assert by_key(tmp_path / "two", "earlier2_image_id") == by_key(tmp_path / "one", "image_id")


@pytest.mark.parametrize(
    ("captions", "agreeing", "kept"),
    [("judge", False, 10), ("tar", False, 12), ("strict", False, 10),
     ("judge", True, 12), ("tar", True, 12), ("strict", True, 10)],
)  # fmt: skip
def test_captions_that_contradict_are_judged_as_one_wishes(
    captions: Any, agreeing: bool, kept: int, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")
    planted.FAULTS["captions_swapped_in_the_tar"].plant(folder)
    if agreeing:
        planted.agree(folder)
    report = repair(folder, tmp_path / "new", captions=captions)
    assert report.kept == kept
    assert verify(tmp_path / "new").findings == ()
    notes = [note for note in by_key(tmp_path / "new", "repaired").values() if note]
    assert len(notes) == (2 if kept == SAMPLES else 0)
    assert all("the table said 'a caption, num" in note for note in notes)


def test_images_beside_the_image_stay_what_they_are(tmp_path: Path) -> None:
    files = {}
    for number in range(4):
        files[f"{number}.jpg"] = images.photo(number, 64, 48)
        files[f"{number}.png"] = images.photo(10 + number, 64, 48, "PNG")
        files[f"{number}.mask.png"] = images.photo(20 + number, 64, 48, "PNG")
    files["odd.webp"] = images.photo(30, 64, 48, "WEBP")
    write_files(tmp_path / "in", files)
    for member in ("jpg", "png"):
        reader = ImageReaderStage(str(tmp_path / "in"), key_split="first", image_member=member)
        out = tmp_path / member
        writer = ImageWriterStage(output_dir=str(out), image_format="keep")
        run_pipeline(Pipeline().add_stage(reader).add_stage(writer))
        report = repair(out, tmp_path / f"new-{member}")
        assert report.lost == ()
        for column in ("sha256", "members"):
            assert by_key(tmp_path / f"new-{member}", column) == by_key(out, column)


def test_json_columns_and_scores_are_taken_over_without_a_manifest(
    sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[True], tmp_path / "out")
    (folder / planted.MANIFEST).unlink()
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        vectors = pa.array([[float(n)] * 3 for n in range(len(table))], pa.list_(pa.float32(), 3))
        table = table.append_column("embedding", vectors)
        pq.write_table(table.append_column("tags", pa.array([["a"]] * len(table))), path)
    report = repair(folder, tmp_path / "new")
    assert report.kept == SAMPLES
    assert verify(tmp_path / "new").findings == ()
    for column in ("number", "embedding", "tags", "split"):
        assert by_key(tmp_path / "new", column) == by_key(folder, column)


def test_a_tar_that_is_there_twice_gives_its_samples_once(
    sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")
    (folder / planted.MANIFEST).unlink()
    for suffix in (".tar", ".parquet"):
        path = planted.shards(folder)[0].with_suffix(suffix)
        shutil.copy(path, folder / f"{path.stem[:-1]}9{suffix}")
    report = repair(folder, tmp_path / "new")
    assert (report.kept, report.copies, report.lost) == (SAMPLES, PER_TAR, ())
    assert verify(tmp_path / "new").findings == ()


# -- sets of others -----------------------------------------------------------------------------


def img2dataset(folder: Path) -> Path:
    """Two shards as img2dataset writes them, with a failed download and a score in each."""
    folder.mkdir()
    for shard in range(2):
        members: planted.Members = []
        rows = []
        for number in range(4):
            key = f"{shard:05d}{number:04d}"
            row = {"key": key, "url": f"http://x/{key}", "similarity": 0.1 * number,
                   "caption": f"text {key}", "status": "failed_to_download", "width": None,
                   "sha256": None}  # fmt: skip
            if number != 2:
                row |= {"status": "success", "width": 64 + number, "sha256": "0" * 64}
                members += [
                    (f"{key}.jpg", images.photo(10 * shard + number, 64 + number, 48)),
                    (f"{key}.json", json.dumps({"url": row["url"]}).encode()),
                    (f"{key}.txt", f"text {key}".encode()),
                ]
            rows.append(row)
        planted.write_tar(folder / f"{shard:05d}.tar", members)
        schema = pa.schema(
            [("key", pa.string()), ("url", pa.string()), ("similarity", pa.float64()),
             ("caption", pa.string()), ("status", pa.string()), ("width", pa.int32()),
             ("sha256", pa.string())]
        )  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{shard:05d}.parquet")
        stats = {"count": 4, "successes": 3}
        (folder / f"{shard:05d}_stats.json").write_text(json.dumps(stats))
    return folder


def test_a_set_of_img2dataset_keeps_keys_urls_and_scores(tmp_path: Path) -> None:
    folder, new = img2dataset(tmp_path / "in"), tmp_path / "new"
    report = repair(folder, new)
    assert (report.kind, report.kept, report.expected, report.lost) == ("foreign", 6, 6, ())
    assert report.renamed == ()
    assert verify(new).findings == ()
    urls = by_key(new, "url")
    assert urls == {key: f"http://x/{key}" for key in urls}
    assert by_key(new, "similarity")["000010003"] == pytest.approx(0.3)
    assert by_key(new, "caption")["000010003"] == "text 000010003"
    assert by_key(new, "earlier_sha256")["000010003"] == "0" * 64


def test_a_cut_shard_of_img2dataset_names_what_is_lost(tmp_path: Path) -> None:
    folder, new = img2dataset(tmp_path / "in"), tmp_path / "new"
    path = folder / "00001.tar"
    path.write_bytes(path.read_bytes()[: planted.borders(path)[3] + 512 + 500])
    report = repair(folder, new)
    assert (report.kept, report.expected) == (4, 6)
    lost = {each.key: (each.tar, each.reason) for each in report.lost}
    assert lost == {
        "000010001": ("00001.tar", "source_truncated"),
        "000010003": ("00001.tar", "not_in_tar"),
    }
    assert verify(new).findings == ()


def test_tars_without_tables_become_a_set_with_splits_by_their_names(tmp_path: Path) -> None:
    folder, new = tmp_path / "in", tmp_path / "new"
    folder.mkdir()
    for name, count in (("my-train-0", 3), ("my-train-1", 2), ("my-val-0", 1)):
        members = [
            (f"a b/{number:02d}.{extension}", data)
            for number in range(count)
            for extension, data in (
                ("JPG", images.photo(len(name) + ord(name[-1]) + number, 64, 48)),
                ("cls", str(number).encode()),
            )
        ]
        planted.write_tar(folder / f"{name}.tar", members)
    report = repair(folder, new)
    assert (report.kept, report.expected, len(report.renamed)) == (6, None, 6)
    assert verify(new).findings == ()
    splits = list(by_key(new, "split").values())
    assert (splits.count("train"), splits.count("val")) == (5, 1)


def test_a_set_of_curator_keeps_what_its_tables_say(tmp_path: Path) -> None:
    folder, new = tmp_path / "in", tmp_path / "new"
    folder.mkdir()
    for batch in ("0a0a0a0a0a0a", "1b1b1b1b1b1b"):
        members = [(f"{batch}{n}.jpg", images.photo(n + ord(batch[1]), 64, 48)) for n in range(3)]
        planted.write_tar(folder / f"images-{batch}-000000.tar", members)
        rows = [
            {"image_id": name[:-4], "tar_file": f"/elsewhere/images-{batch}-000000.tar",
             "member_name": name, "original_path": f"/in/{name}", "metadata": "{}"}
            for name, _ in members
        ]  # fmt: skip
        pq.write_table(pa.Table.from_pylist(rows), folder / f"images-{batch}-000000.parquet")
    path = folder / "images-1b1b1b1b1b1b-000000.tar"
    path.write_bytes(path.read_bytes()[: planted.borders(path)[2]])
    report = repair(folder, new)
    assert (report.kept, report.expected, report.renamed) == (5, 6, ())
    assert [(each.key, each.reason) for each in report.lost] == [("1b1b1b1b1b1b2", "not_in_tar")]
    assert verify(new).findings == ()
    assert by_key(new, "earlier_original_path")["0a0a0a0a0a0a1"] == "/in/0a0a0a0a0a0a1.jpg"
    assert by_key(new, "metadata")["0a0a0a0a0a0a1"] == "{}"


def test_any_number_of_workers_makes_the_same_set(sets: dict[bool, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(sets[True], tmp_path / "out")
    planted.FAULTS["a_header_damaged"].plant(folder)
    reports = [
        dataclasses.replace(
            repair_with_workers(folder, tmp_path / name, executor=executor), output=""
        )
        for name, executor in (("a", InlineExecutor()), ("b", LocalExecutor(workers=2)))
    ]
    assert reports[0] == reports[1]
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_tars_in_folders_are_found(tmp_path: Path) -> None:
    folder = img2dataset(tmp_path / "flat")
    (tmp_path / "in" / "part").mkdir(parents=True)
    folder.rename(tmp_path / "in" / "part" / "one")
    report = repair(tmp_path / "in", tmp_path / "new")
    assert (report.kept, report.lost) == (6, ())
    assert by_key(tmp_path / "new", "url")["000000001"] == "http://x/000000001"


# -- what is refused, and what is told ----------------------------------------------------------


def test_the_two_folders_must_lie_apart(sets: dict[bool, Path], tmp_path: Path) -> None:
    folder = sets[False]
    for output in (folder, folder / "new", folder.parent):
        with pytest.raises(UsageError, match="choose a folder beside it"):
            repair(folder, output)
    with pytest.raises(SourceNotFoundError, match="is no folder"):
        repair(tmp_path / "nothing", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="has no tar"):
        repair(tmp_path / "empty", tmp_path / "new")


def test_names_in_a_manifest_that_lead_elsewhere_are_left_alone(
    sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")

    def elsewhere(fields: dict[str, Any]) -> None:
        fields["shards"][1] |= {"tar": "../secret.tar", "sidecar": "/etc/passwd"}
        fields["shards"].append("nonsense")
        fields["recipe"] = {"stages": [{"@": "ImageReaderStage", "json_fields": 5}, 7]}
        fields["name"], fields["seed"] = 3, "x"

    planted.edit_manifest(folder, elsewhere)
    report = repair(folder, tmp_path / "new")
    assert report.kept == 2 * PER_TAR
    assert len(report.left_out) == 1
    assert verify(tmp_path / "new").findings == ()


def test_the_command_prints_the_account(
    sets: dict[bool, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(sets[False], tmp_path / "out")
    planted.FAULTS["an_image_cut"].plant(folder)
    new = str(tmp_path / "new")
    assert main(["repair", str(folder), new, "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"11 of 12 samples are in {new}; lost: 1\n")
    assert "truncated_image" in said
    assert main(["repair", str(folder), new, "--workers", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kept"] == 11
    assert [each["reason"] for each in told["lost"]] == ["truncated_image"]
    assert main(["repair", str(folder), new, "--workers", "1", "--quiet"]) == 0
    assert capsys.readouterr().out == ""


# -- any damage ---------------------------------------------------------------------------------


def harm(path: Path, chance: random.Random) -> None:
    """Flip a bit, cut a piece out, put one in, blank one, or cut the end off."""
    data = bytearray(path.read_bytes())
    at, length = chance.randrange(len(data)), chance.randrange(2000)
    how = chance.randrange(5)
    if how == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif how == 1:
        del data[at : at + length]
    elif how == 2:
        data[at:at] = chance.randbytes(length)
    elif how == 3:
        data[at : at + length] = bytes(len(data[at : at + length]))
    else:
        del data[at:]
    path.write_bytes(data)


SEEDS = [pytest.param(n, marks=() if n < 6 else (pytest.mark.slow,)) for n in range(60)]


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_is_damaged_comes_out_sound_and_every_sample_is_accounted_for(
    seed: int, sets: dict[bool, Path], tmp_path: Path
) -> None:
    chance = random.Random(seed)
    folder = shutil.copytree(sets[True], tmp_path / "out")
    kinds = (".tar", ".parquet", ".json", ".yaml")
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in kinds and path.is_file()]
    for path in chance.sample(files, chance.randint(1, 4)):
        harm(path, chance)
    if chance.random() < 0.3:
        with contextlib.suppress(ValueError):
            planted.agree(folder)
    before = tree(folder)
    report = repair(folder, tmp_path / "new")
    assert tree(folder) == before
    found = verify(tmp_path / "new")
    assert {finding.rule for finding in found.findings} <= TEXTS, found.to_text()
    if report.expected is not None:
        told = report.kept + len(report.lost) + sum(report.nameless.values())
        assert told >= report.expected
