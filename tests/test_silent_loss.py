"""Faults that once made a wrong dataset that nothing complained of."""

from __future__ import annotations

import io
import os
import tarfile

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.run import RunOptions
from pixsieve.pipeline import Pipeline
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
