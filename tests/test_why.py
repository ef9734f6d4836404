import dataclasses
import io
import json
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve import InlineExecutor, Pipeline, RunOptions
from pixsieve.errors import (
    FailureBudgetError,
    RunError,
    SourceError,
    SourceNotFoundError,
    UsageError,
)
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    ImageReaderStage,
    ImageWriterStage,
)
from pixsieve.why import why


def jpeg(seed: int, side: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


def export(source, output, where="width >= 48", **options) -> None:
    pipeline = Pipeline()
    pipeline.add_stage(ImageReaderStage(str(source)))
    pipeline.add_stage(ExactDeduplicationStage())
    pipeline.add_stage(FilterStage(where))
    pipeline.add_stage(ImageWriterStage(output_dir=str(output), images_per_tar=2))
    pipeline.run(InlineExecutor(), RunOptions(**options))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A dataset of loose files with every fate, for reading only."""
    folder = tmp_path_factory.mktemp("why")
    photos = folder / "photos"
    (photos / "cats").mkdir(parents=True)
    for number in range(12):
        (photos / "cats" / f"tom{number}.jpg").write_bytes(jpeg(number))
    shutil.copy(photos / "cats" / "tom3.jpg", photos / "copy.jpg")
    (photos / "copy.txt").write_text("the copy with a caption stays")
    (photos / "small.jpg").write_bytes(jpeg(100, side=32))
    (photos / "broken.jpg").write_bytes(jpeg(101)[:400])
    (photos / "odd \x1b[31m.jpg").write_bytes(jpeg(102))
    export(photos, folder / "out")
    return folder / "out"


def test_a_kept_sample_is_where_the_answer_says(made):
    (answer,) = why(made, "cats/tom5.jpg")
    assert (answer.status, answer.original_path) == ("kept", "cats/tom5.jpg")
    data = (made / answer.tar_file).read_bytes()
    found = data[answer.member_offset : answer.member_offset + answer.member_size]
    assert found == jpeg(5)
    with tarfile.open(made / answer.tar_file) as tar:
        assert tar.extractfile(answer.member_name).read() == found
    assert f"kept in {answer.tar_file} as {answer.member_name}" in answer.to_text()


def test_a_dropped_sample_has_its_stage_reason_and_evidence(made):
    (answer,) = why(made, "small.jpg")
    assert (answer.status, answer.stage, answer.reason) == ("dropped", "FilterStage", "filter")
    assert json.loads(answer.evidence)["width"] == 32
    assert "dropped by FilterStage: filter" in answer.to_text()
    assert "evidence  width: 32" in answer.to_text()


def test_a_failed_sample_has_the_decoders_word(made):
    (answer,) = why(made, "broken")
    assert (answer.status, answer.reason) == ("failed", "truncated_image")
    assert "evidence" in answer.to_text()


def test_a_duplicate_leads_to_the_one_that_stayed(made):
    (answer,) = why(made, "tom3")
    (stayed,) = why(made, "copy")
    assert (answer.reason, answer.duplicate_of) == ("exact_duplicate", stayed.image_id)
    assert answer.twin == stayed
    assert f"same as   {stayed.image_id}: kept in {stayed.tar_file}" in answer.to_text()


def test_a_duplicate_of_an_image_of_another_dataset_says_so(made, tmp_path):
    shutil.copytree(made, tmp_path / "out")
    path = tmp_path / "out" / "dropped" / "dropped.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    (stayed,) = why(made, "copy")
    for row in rows:
        if row["reason"] == "exact_duplicate":
            row["evidence"] = json.dumps({"against": "benchmark"})
            row["duplicate_of"] = stayed.image_id  # there is one of that id here, too
    pq.write_table(pa.Table.from_pylist(rows, table.schema), path)
    (answer,) = why(tmp_path / "out", "tom3")
    assert answer.twin is None
    assert f"same as   {stayed.image_id}: in benchmark\n" in answer.to_text()


def test_one_sample_answers_to_all_of_its_names(made):
    (answer,) = why(made, "cats/tom7")
    names = [
        answer.image_id,
        answer.key,
        answer.member_name,
        "cats/tom7",
        "cats/tom7.jpg",
        "tom7",
        "tom7.jpg",
        "cats/tom7.txt",  # a member that travels with it
    ]
    assert [why(made, name) for name in names] == [[answer]] * len(names)


def test_a_name_is_not_found_inside_another(made):
    (answer,) = why(made, "tom1")
    assert answer.original_key == "cats/tom1", "neither tom10 nor tom11"


def test_an_unknown_name_is_told_the_nearest(made):
    with pytest.raises(UsageError, match=r"has no sample 'brokn'; did you mean 'broken'"):
        why(made, "brokn")
    with pytest.raises(UsageError, match=r"has no sample 'entirely else'; expected an image_id"):
        why(made, "entirely else")


@pytest.mark.parametrize("key", ["", "/", ".", "..", "\udcff", "a" * 10_000, "%", "*", "'"])
def test_no_name_is_taken_for_a_pattern(made, key):
    with pytest.raises(UsageError, match="has no sample"):
        why(made, key)


def test_control_characters_of_names_do_not_reach_the_terminal(made):
    (answer,) = why(made, "odd \x1b[31m.jpg")
    assert all(line.isprintable() for line in answer.to_text().splitlines())
    assert r"odd \x1b[31m.jpg" in answer.to_text()


def test_exact_matches_come_first_and_their_number_is_bounded(tmp_path):
    photos = tmp_path / "photos"
    for number in range(6):
        (photos / f"{number}").mkdir(parents=True)
        (photos / f"{number}" / "cat.jpg").write_bytes(jpeg(number))
    (photos / "cat.jpg").write_bytes(jpeg(9, side=32))  # dropped, so it comes last by itself
    export(photos, tmp_path / "out")
    found = why(tmp_path / "out", "cat.jpg")
    paths = [answer.original_path for answer in found]
    assert paths == ["cat.jpg", *(f"{number}/cat.jpg" for number in range(6))]
    assert why(tmp_path / "out", "cat.jpg", limit=3) == found[:3]


def test_the_name_of_a_source_tar_answers_with_its_samples(tmp_path):
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"k{number}.jpg")
            info.size = len(jpeg(number))
            tar.addfile(info, io.BytesIO(jpeg(number)))
    export(tmp_path / "in.tar", tmp_path / "out")
    assert [a.original_key for a in why(tmp_path / "out", "in.tar")] == ["k0", "k1", "k2"]
    assert [a.original_key for a in why(tmp_path / "out", "in.tar", limit=2)] == ["k0", "k1"]


def test_a_folder_that_is_no_finished_dataset_is_named(tmp_path, made):
    with pytest.raises(SourceNotFoundError, match="there is no such folder"):
        why(tmp_path / "gone", "x")
    with pytest.raises(SourceError, match=r"has no manifest\.json, so it is no finished dataset"):
        why(tmp_path, "x")
    (tmp_path / "manifest.json").write_text('{"format": "other", "shards": []}')
    with pytest.raises(SourceError, match="is not the manifest of a pixsieve dataset"):
        why(tmp_path, "x")
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["shards"][0]["sidecar"] = "../../etc/x.parquet"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(SourceError, match="is not the manifest of a pixsieve dataset"):
        why(tmp_path, "x")
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(SourceError, match="cannot be read"):
        why(tmp_path, "x")


def test_a_dataset_that_lost_a_file_sends_to_verify(tmp_path, made):
    damaged = tmp_path / "out"
    shutil.copytree(made, damaged)
    sidecar = next(damaged.glob("images-*.parquet"))
    whole = sidecar.read_bytes()
    sidecar.unlink()
    with pytest.raises(SourceError, match="pixsieve verify"):
        why(damaged, "small.jpg")
    sidecar.write_bytes(whole[:-20])
    with pytest.raises(SourceError, match="pixsieve verify"):
        why(damaged, "small.jpg")


@pytest.fixture
def nothing_left(tmp_path):
    """The output of a run whose filter dropped every sample, from a tar of many and loose files."""
    source = tmp_path / "in"
    source.mkdir()
    with tarfile.open(source / "in.tar", "w") as tar:
        for number in range(1100):  # more than one part
            info = tarfile.TarInfo(f"k{number:04}.jpg")
            data = jpeg(number, side=8)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (source / "loose.jpg").write_bytes(jpeg(1099, side=8))
    (source / "broken.jpg").write_bytes(jpeg(3)[:400])
    with pytest.raises(RunError, match=r"nothing is left of 1102 .* loosen the recipe"):
        export(source, tmp_path / "out", where="width > 8")
    return tmp_path / "out"


def test_there_is_an_answer_where_nothing_was_left_for_a_dataset(nothing_left):
    for key in ("k0000", "k0500.jpg", "k1098"):
        (answer,) = why(nothing_left, key)
        assert (answer.status, answer.original_path) == ("dropped", "in.tar")
        assert (answer.stage, answer.reason) == ("FilterStage", "filter")
        assert json.loads(answer.evidence) == {"where": "width > 8", "width": 8}
    (broken,) = why(nothing_left, "broken.jpg")
    assert (broken.status, broken.reason) == ("failed", "truncated_image")
    both = [*why(nothing_left, "loose"), *why(nothing_left, "k1099")]
    (copy,) = (answer for answer in both if answer.reason == "exact_duplicate")
    assert copy.twin in both
    with pytest.raises(UsageError, match="has no sample 'brokn'; did you mean 'broken'"):
        why(nothing_left, "brokn")


def test_a_workspace_answers_for_what_was_kept_without_a_dataset(made, tmp_path):
    photos = made.parent / "photos"
    pipeline = Pipeline().add_stage(ImageReaderStage(str(photos)))
    pipeline.add_stage(FilterStage("width >= 48"))
    pipeline.run(InlineExecutor(), RunOptions(workspace=str(tmp_path)))
    (answer,) = why(tmp_path, "tom5")
    assert (answer.status, answer.tar_file) == ("kept", None)
    assert "kept by every stage; it is in no dataset yet\n" in answer.to_text()
    assert why(tmp_path, "small") == why(made, "small")


def test_a_workspace_that_is_damaged_is_named(nothing_left):
    for table in (nothing_left / ".pixsieve").rglob("*.parquet"):
        table.unlink()
    with pytest.raises(SourceError, match=r"the workspace .* cannot be read: .*; run the recipe"):
        why(nothing_left, "broken.jpg")


def test_where_all_images_are_broken_nobody_is_told_to_loosen_a_recipe(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.jpg").write_bytes(jpeg(3)[:400])
    with pytest.raises(RunError, match=r"1 by inspect \(truncated_image\); mend the source"):
        export(tmp_path / "in", tmp_path / "out", max_failed=1)
    (answer,) = why(tmp_path / "out", "broken")
    assert answer.status == "failed"


SEARCH = """
import resource, sys
from pixsieve.why import why
found = why(sys.argv[1], "i99", limit=10_000)
print(len(found), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak_memory(folder, shards: int) -> int:
    """Return how many bytes a process takes at most to search so many shards: links to one file."""
    folder.mkdir()
    ids = [f"i{number}" for number in range(100)]
    columns = (
        "image_id",
        "key",
        "member_name",
        "original_key",
        "original_path",
        *map(str, range(20)),
    )
    pq.write_table(pa.table(dict.fromkeys(columns, ids)), folder / "0.parquet")
    none = pa.table({"image_id": pa.array([], pa.string())})
    (folder / "dropped").mkdir()
    pq.write_table(none, folder / "dropped" / "dropped.parquet")
    names = [f"{number}.parquet" for number in range(shards)]
    for name in names[1:]:
        (folder / name).hardlink_to(folder / names[0])
    manifest = {"format": "pixsieve-dataset", "shards": [{"sidecar": name} for name in names]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    command = [sys.executable, "-c", SEARCH, str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found, peak = map(int, said.split())
    assert found == shards
    return peak


def test_memory_does_not_grow_with_the_number_of_shards(tmp_path):
    few, many = peak_memory(tmp_path / "few", 300), peak_memory(tmp_path / "many", 1500)
    assert many < few + 24_000_000


def test_answers_are_plain_values(made):
    (answer,) = why(made, "tom3")
    assert json.loads(json.dumps(dataclasses.asdict(answer)))["twin"]["status"] == "kept"


def test_a_run_that_stopped_at_too_many_failures_answers_for_each(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "whole.jpg").write_bytes(jpeg(2))
    (tmp_path / "in" / "broken.jpg").write_bytes(jpeg(3)[:400])
    with pytest.raises(FailureBudgetError):
        export(tmp_path / "in", tmp_path / "out", max_failed=0.1)
    (answer,) = why(tmp_path / "out", "broken")
    assert answer.reason == "truncated_image"
