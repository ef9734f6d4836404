"""Faults that once made a wrong dataset that nothing complained of."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import FailureBudgetError
from pixsieve.pipeline import Pipeline
from pixsieve.query import query
from pixsieve.stages import ImageReaderStage, ImageWriterStage
from pixsieve.testing import images
from pixsieve.verify import verify


def export(source, output, workspace=None, image_format="jpeg"):
    pipeline = Pipeline().add_stage(ImageReaderStage(str(source)))
    pipeline.add_stage(ImageWriterStage(output_dir=str(output), image_format=image_format))
    return pipeline.run(InlineExecutor(), RunOptions(max_failed=1, workspace=workspace))


def write_tar(path, count=4):
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(count):
            for name, data in (
                (f"{number}.txt", b"a caption"),
                (f"{number}.jpg", images.photo(number, 64, 48)),
            ):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def test_a_tar_that_is_cut_in_the_padding_of_a_member_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.tar"
    write_tar(path)
    with tarfile.open(path) as tar:
        caption = tar.getmember("2.txt")
    os.truncate(path, caption.offset_data + 100)  # its data is whole, its block is not
    result = export(tmp_path / "in", tmp_path / "out")
    assert result.counts.kept == 2
    assert "source_truncated" in {reason.reason for reason in result.reasons}
    assert any("a.tar: not read on from byte" in note for note in result.notes)


def test_a_tar_without_a_byte_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "a.tar")
    (tmp_path / "in" / "b.tar").touch()
    result = export(tmp_path / "in", tmp_path / "out")
    assert [reason.reason for reason in result.reasons] == ["source_truncated"]


def test_a_source_that_changes_behind_its_old_size_and_time_is_read_anew(tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.tar"
    write_tar(path)
    export(tmp_path / "in", tmp_path / "one", str(tmp_path / "ws"))
    before = path.stat()
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        image = tar.getmember("1.jpg")
    data[image.offset_data + 30] ^= 1  # in a table: another image, as long as the old one
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    export(tmp_path / "in", tmp_path / "two", str(tmp_path / "ws"))
    report = verify(tmp_path / "two")
    assert not [finding for finding in report.findings if finding.rule == "column-sha256"]


@pytest.mark.parametrize("alpha", [255, 100])
def test_the_mode_in_the_sidecar_is_that_of_the_webp(tmp_path, alpha):
    (tmp_path / "in").mkdir()
    Image.new("RGBA", (30, 20), (1, 2, 3, alpha)).save(tmp_path / "in" / "a.png")
    export(tmp_path / "in", tmp_path / "out", image_format="webp")
    (sidecar,) = (tmp_path / "out").glob("images-*.parquet")
    assert pq.read_table(sidecar)["mode"].to_pylist() == ["RGB" if alpha == 255 else "RGBA"]
    assert verify(tmp_path / "out").ok


def test_a_caption_that_no_column_holds_is_no_fault_of_the_dataset(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(images.photo(1, 64, 48))
    (tmp_path / "in" / "a.txt").write_text("x" * 2_000_000)
    export(tmp_path / "in", tmp_path / "out")
    assert verify(tmp_path / "out").findings == ()


@pytest.mark.parametrize(("name", "pack"), [("a.tar.xz", lzma.compress), ("a.tbz2", bz2.compress)])
def test_an_archive_of_a_packing_that_is_not_read_is_told_as_one(tmp_path, name, pack):
    (tmp_path / "in").mkdir()
    write_tar(tmp_path / "in" / "b.tar")
    (tmp_path / "in" / name).write_bytes(pack((tmp_path / "in" / "b.tar").read_bytes()))
    result = export(tmp_path / "in", tmp_path / "out")
    assert [reason.reason for reason in result.reasons] == ["source_damaged"]
    (note,) = result.notes
    assert note.startswith(f"{name}: not read on from byte 0")
    assert "make it a plain, gzip or zstd tar" in note


def test_a_caption_that_cannot_be_read_is_told_and_travels(tmp_path):
    (tmp_path / "in").mkdir()
    for number, caption in enumerate([b"fine", b"caf\xe9", b"x" * 2_000_000]):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(images.photo(number, 64, 48))
        (tmp_path / "in" / f"{number}.txt").write_bytes(caption)
    result = export(tmp_path / "in", tmp_path / "out")
    note, loaders = result.notes
    assert "the caption or json of 2 samples could not be read" in note
    assert "the .txt of 1 of 3 samples is not UTF-8: " in loaders
    rows = query(
        tmp_path / "out", "select caption, metadata_problem why from samples order by original_key"
    ).to_pylist()
    assert rows == [
        {"caption": "fine", "why": None},
        {"caption": None, "why": "txt: not UTF-8 at byte 3"},
        {"caption": None, "why": "txt: 2000000 bytes, at most 1048576 are read"},
    ]
    known = query(tmp_path / "out" / ".pixsieve", "select count(metadata_problem) n from samples")
    assert known.to_pylist() == [{"n": 2}]
    assert verify(tmp_path / "out").ok


@pytest.mark.slow
def test_the_largest_image_that_is_accepted_can_be_encoded_in_a_workers_memory(tmp_path):
    (tmp_path / "in").mkdir()
    large = Image.new("RGBA", (16_383, 10_900), (10, 20, 30, 128))
    large.save(tmp_path / "in" / "alpha.png", compress_level=1)
    floats = Image.new("F", (16_383, 10_900), 0.5)
    floats.save(tmp_path / "in" / "float.tif", compression="tiff_deflate")
    for image_format in ("jpeg", "png"):  # WebP packs opacity in more memory than that
        output = tmp_path / image_format
        pipeline = Pipeline().add_stage(ImageReaderStage(str(tmp_path / "in")))
        pipeline.add_stage(ImageWriterStage(output_dir=str(output), image_format=image_format))
        assert pipeline.run(LocalExecutor(workers=1)).counts.kept == 2


def test_a_json_field_that_there_is_nowhere_is_told(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(images.photo(1, 64, 48))
    (tmp_path / "in" / "a.json").write_text('{"score": 1}')
    reader = ImageReaderStage(
        str(tmp_path / "in"), json_fields={"score": "int64", "scroe": "int64"}
    )
    pipeline = Pipeline().add_stage(reader)
    pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / "out")))
    for _ in range(2):  # what was read before says the same
        (note,) = pipeline.run(InlineExecutor()).notes
        assert note == "no json has a field 'scroe' of the type int64: its column is null"


def test_more_lost_bytes_than_images_may_fail_stop_the_run(tmp_path):
    path = tmp_path / "in.tar"
    write_tar(path, count=40)
    with tarfile.open(path) as tar:
        third = tar.getmember("2.txt")
    data = bytearray(path.read_bytes())
    data[third.offset] ^= 1  # of a header: what is behind it cannot be found, and is one row
    path.write_bytes(data)
    pipeline = Pipeline().add_stage(ImageReaderStage(str(path)))
    pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / "out")))
    with pytest.raises(FailureBudgetError, match=r"bytes of the sources cannot be read.*in\.tar"):
        pipeline.run(InlineExecutor(), RunOptions(max_failed=0.5))
    assert pipeline.run(InlineExecutor(), RunOptions(max_failed=1)).counts.kept == 2


def test_so_do_lost_bytes_of_a_compressed_tar(tmp_path):
    write_tar(tmp_path / "in.tar", count=200)
    data = bytearray(gzip.compress((tmp_path / "in.tar").read_bytes()))
    fifth = len(data) // 5
    data[fifth : fifth + 4000] = b"\xff" * 4000
    (tmp_path / "in.tar.gz").write_bytes(data)
    pipeline = Pipeline().add_stage(ImageReaderStage(str(tmp_path / "in.tar.gz")))
    pipeline.add_stage(ImageWriterStage(output_dir=str(tmp_path / "out")))
    with pytest.raises(FailureBudgetError, match="bytes of the sources cannot be read"):
        pipeline.run(InlineExecutor(), RunOptions(max_failed=0.5))
    assert pipeline.run(InlineExecutor(), RunOptions(max_failed=1)).counts.kept > 10
