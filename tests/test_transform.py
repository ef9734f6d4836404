"""The stage that changes images while they are exported: what it refuses, and what comes out."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve import image, recipe
from pixsieve.cli import main
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.errors import PlanError
from pixsieve.export.transform import decoded_formats, target_of
from pixsieve.image import lossless
from pixsieve.pipeline import Pipeline, describe
from pixsieve.stages import ImageReaderStage, ImageTransformStage, ImageWriterStage, ShuffleStage
from pixsieve.testing import cameras, exiftool, images
from pixsieve.testing import corpus as kit
from pixsieve.testing.faults import tree
from pixsieve.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"lossless": lossless.is_available()}
"""Losslessly where this machine can."""


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    files = {
        f"{orientation}{name}.jpg": cameras.camera_jpeg(
            orientation, seed=orientation, width=width, height=height
        )
        for orientation in range(1, 9)
        for name, width, height in (("even", 192, 112), ("odd", 197, 111))
    }
    files |= {
        "plain.jpg": images.photo(20),
        "profile.jpg": cameras.camera_jpeg(6, icc=cameras.other_profile()),
        "cmyk.jpg": cameras.camera_jpeg(mode="CMYK"),
        "alpha.png": cameras.described_png(6),
        "turned.webp": cameras.described_webp(6),
        "moving.gif": cameras.described_gif(),
        "page.tif": images.photo(21, format="TIFF"),
        "bits.bmp": images.photo(22, format="BMP"),
        "new.avif": images.avif(23, exif=images.exif(6)),
    }
    kit.write_files(folder, files)
    return folder


def pipeline(source: Path, output: Path, stage: ImageTransformStage | None, **writer: Any):
    made = Pipeline().add_stage(
        ImageReaderStage(str(source), animated="first_frame", decode_check="header")
    )
    if stage is not None:
        made.add_stage(stage)
    return made.add_stage(ImageWriterStage(output_dir=str(output), indexes=(), **writer))


def exported(
    source: Path, output: Path, stage: ImageTransformStage | None, **writer: Any
) -> dict[str, dict[str, Any]]:
    """Return the rows of the sidecar, by original path, with the image's bytes as ``data``."""
    options = RunOptions(max_failed=1.0)
    result = pipeline(source, output, stage, **writer).run(InlineExecutor(), options)
    assert result.counts.failed == 0
    assert verify(output, workers=0, load=False).findings == ()
    rows = {}
    for path in sorted(output.glob("*.parquet")):
        with tarfile.open(path.with_suffix(".tar")) as tar:
            for row in pq.read_table(path).to_pylist():
                member = tar.extractfile(row["member_name"])
                assert member is not None
                rows[row["original_path"]] = row | {"data": member.read()}
    return rows


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"resize_mode": "keep_ratio"},
            "image_size is None with resize_mode 'keep_ratio'; expected a side in pixels from 1",
        ),
        ({"resize_mode": "border", "image_size": 0}, "image_size is 0"),
        ({"resize_mode": "border", "image_size": 20_000}, "image_size is 20000"),
        ({"image_size": 256}, "image_size is 256, but resize_mode is 'no'; name a resize_mode"),
        ({"upscale": True}, "upscale is True, but resize_mode is 'no'"),
        ({"resample": "lanczos"}, "resample is 'lanczos', but resize_mode is 'no'"),
        ({"orientation": "keep", "lossless": False}, "lossless is False, but orientation"),
        ({"orientation": "keep", "strip": False}, "changes nothing as it is set; leave it out"),
        ({"resize_mode": "shorter"}, "resize_mode is 'shorter'"),
        ({"color": "p3"}, "color is 'p3'"),
        ({"orientation": "baked"}, "orientation is 'baked'"),
        ({"strip": "yes"}, "strip is 'yes'"),
    ],
)
def test_senseless_settings_are_refused(options, told):
    with pytest.raises(PlanError) as caught:
        ImageTransformStage(**options)
    assert told in str(caught.value)


def test_it_stands_right_before_the_writer(tmp_path: Path):
    reader = ImageReaderStage(str(tmp_path), decode_check="header")
    writer = ImageWriterStage(output_dir="out")
    stage = ImageTransformStage(**HERE)
    for stages in ((stage, ShuffleStage(), writer), (stage, stage, writer), (stage,)):
        made = Pipeline().add_stage(reader)
        for each in stages:
            made.add_stage(each)
        with pytest.raises(PlanError, match="right before the ImageWriterStage, once"):
            made.plan()
    plan = Pipeline().add_stage(reader).add_stage(stage).add_stage(writer).plan()
    assert plan.stages == (reader, stage, writer)
    assert "ImageTransformStage(" in describe(plan)
    assert "decodes what will be encoded anew" in describe(plan)


def test_without_the_library_it_is_refused_before_any_work(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(image, "can_turn_losslessly", lambda: False)
    made = pipeline(tmp_path, tmp_path / "out", ImageTransformStage())
    with pytest.raises(PlanError, match="apt-get install libturbojpeg0"):
        made.plan()
    for options in ({"lossless": False}, {"orientation": "keep"}):
        pipeline(tmp_path, tmp_path / "out", ImageTransformStage(**options)).plan()


def test_a_recipe_has_it(tmp_path: Path):
    made = pipeline(
        tmp_path,
        tmp_path / "out",
        ImageTransformStage(resize_mode="center_crop", image_size=512, color="srgb", **HERE),
        progressive=True,
    )
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.dumps(made))
    assert recipe.load(path) == made
    assert "resize_mode: center_crop" in path.read_text()


def test_which_formats_are_written_and_must_decode():
    keep, jpeg = (ImageWriterStage(output_dir="o", image_format=f) for f in ("keep", "jpeg"))
    strip, size = (
        ImageTransformStage(),
        ImageTransformStage(resize_mode="keep_ratio", image_size=64),
    )
    targets = {name: target_of(name, keep, strip) for name in image.FORMATS}
    assert {name for name, to in targets.items() if name != to} == {"tiff"}
    targets = {name: target_of(name, keep, size) for name in image.FORMATS}
    assert {name: to for name, to in targets.items() if name != to} == dict.fromkeys(
        ("gif", "bmp", "tiff"), "png"
    )
    assert {target_of(name, jpeg, size) for name in image.FORMATS} == {"jpeg"}
    assert decoded_formats(keep, None) == frozenset()
    assert decoded_formats(keep, strip) == {"tiff", "avif"}
    assert decoded_formats(keep, size) == frozenset(image.FORMATS)
    assert "jpeg" not in decoded_formats(jpeg, strip)


def test_without_it_bytes_are_copied(photographs: Path, tmp_path: Path):
    rows = exported(photographs, tmp_path / "out", None, image_format="keep")
    assert {row["encoding"] for row in rows.values()} == {"copy"}
    for name, row in rows.items():
        assert row["data"] == (photographs / name).read_bytes()


@pytest.mark.parametrize("image_format", ["keep", "jpeg", "webp"])
def test_all_is_upright_and_bare(photographs: Path, tmp_path: Path, image_format: str):
    rows = exported(
        photographs, tmp_path / "out", ImageTransformStage(**HERE), image_format=image_format
    )
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["privacy"].startswith("No image holds metadata")
    source = {path.name: path.read_bytes() for path in photographs.iterdir()}
    assert set(rows) == set(source)
    for name, row in rows.items():
        before, data = image.probe(source[name]), row["data"]
        assert row["exif_orientation"] == 1
        assert (row["width"], row["height"]) == (before.width, before.height)
        assert row["sha256"] == hashlib.sha256(data).hexdigest()
        assert row["member_size"] == len(data) == row["member_sizes"][0]
        assert row["original_sha256"] == hashlib.sha256(source[name]).hexdigest()
        assert row["original_format"] == before.format
        assert (row["encoding"] == "copy") == (data == source[name])
        assert b"secret" not in data
        assert not exiftool.is_available() or not exiftool.private(data)
        shown = image.decode(data, image.probe(data)).astype(int)
        assert np.abs(shown - image.decode(source[name], before)).mean() < 6
    if image_format == "keep":
        assert {name for name, row in rows.items() if row["encoding"] == "copy"} == {
            "bits.bmp", "plain.jpg",
        }  # fmt: skip
        assert Image.open(io.BytesIO(rows["moving.gif"]["data"])).n_frames == 3
        assert rows["page.tif"]["member_name"].endswith(".png")
        profile = Image.open(io.BytesIO(rows["profile.jpg"]["data"])).info["icc_profile"]
        assert profile == cameras.other_profile()


def test_an_orientation_can_be_left_to_the_reader(photographs: Path, tmp_path: Path):
    rows = exported(
        photographs, tmp_path / "out", ImageTransformStage(orientation="keep"), image_format="keep"
    )
    for name, row in rows.items():
        if name[0].isdecimal():
            assert row["exif_orientation"] == int(name[0])
            assert row["encoding"].startswith("jpeg pixels=kept dropped=exif")
            assert b"secret" not in row["data"]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("center_crop", {(64, 64)}),
        ("keep_ratio", {(110, 64), (64, 110), (114, 64), (64, 114)}),
        ("keep_ratio_largest", {(64, 37), (37, 64), (64, 36), (36, 64)}),
        ("border", {(64, 64)}),
    ],
)
def test_sizes(photographs: Path, tmp_path: Path, mode: Any, expected: set[tuple[int, int]]):
    stage = ImageTransformStage(resize_mode=mode, image_size=64, **HERE)
    rows = exported(photographs, tmp_path / "out", stage, background="#ff8800")
    found = {(row["width"], row["height"]) for name, row in rows.items() if name[0].isdecimal()}
    assert found == expected
    assert all(row["format"] == "jpeg" for row in rows.values())
    assert rows["plain.jpg"]["height"] <= 64 or mode in {"keep_ratio", "center_crop"}


def test_what_is_small_enough_is_copied_unless_it_may_grow(photographs: Path, tmp_path: Path):
    options = {"resize_mode": "keep_ratio_largest", "image_size": 300, "strip": False, **HERE}
    rows = exported(photographs, tmp_path / "a", ImageTransformStage(**options))
    assert rows["plain.jpg"]["encoding"] == "copy"
    assert rows["1even.jpg"]["encoding"] == "copy"
    rows = exported(photographs, tmp_path / "b", ImageTransformStage(upscale=True, **options))
    assert {max(row["width"], row["height"]) for row in rows.values()} == {300}


def test_other_settings_are_other_datasets(photographs: Path, tmp_path: Path):
    names = set()
    for number, stage in enumerate(
        (
            None,
            ImageTransformStage(**HERE),
            ImageTransformStage(orientation="keep"),
            ImageTransformStage(resize_mode="border", image_size=64, **HERE),
            ImageTransformStage(resize_mode="border", image_size=65, **HERE),
        )
    ):
        output = tmp_path / str(number)
        exported(photographs, output, stage)
        names.add(next(output.glob("*.tar")).name)
    assert len(names) == 5


def test_any_number_of_workers_makes_the_same(photographs: Path, tmp_path: Path):
    stage = ImageTransformStage(resize_mode="center_crop", image_size=48, color="srgb", **HERE)
    made = []
    for number, executor in enumerate((InlineExecutor(), None)):
        output = tmp_path / str(number)
        options = {"image_format": "webp", "images_per_tar": 7}
        pipeline(photographs, output, stage, **options).run(executor)
        made.append(tree(output))
    assert made[0] == made[1]


def test_an_image_that_must_be_decoded_and_cannot_is_a_row(tmp_path: Path):
    good, torn = cameras.camera_jpeg(1), images.oriented_jpeg(6, 2, 300, 200)
    files = {f"{number}.jpg": images.photo(number) for number in range(10)}
    kit.write_files(tmp_path / "in", files | {"good.jpg": good, "torn.jpg": torn[:-2000]})
    for number, (stage, failed) in enumerate(
        (
            (ImageTransformStage(**HERE), {"torn.jpg"}),
            (ImageTransformStage(orientation="keep"), set()),
            (ImageTransformStage(resize_mode="border", image_size=8, **HERE), {"torn.jpg"}),
        )
    ):
        output = tmp_path / str(number)
        pipeline(tmp_path / "in", output, stage).run(InlineExecutor())
        dropped = pq.read_table(output / "dropped" / "dropped.parquet").to_pylist()
        assert {row["original_path"] for row in dropped} == failed


def test_what_becomes_small_enough_need_not_fit_the_format_before(tmp_path: Path):
    kit.write_files(tmp_path / "in", {"long.png": images.photo(1, 20_000, 40, "PNG")})
    for mode, size in (("border", (1000, 1000)), ("keep_ratio_largest", (1000, 2))):
        stage = ImageTransformStage(resize_mode=mode, image_size=1000, **HERE)
        rows = exported(tmp_path / "in", tmp_path / mode, stage, image_format="webp")
        assert (rows["long.png"]["width"], rows["long.png"]["height"]) == size


def test_the_command_does_the_same(photographs: Path, tmp_path: Path):
    lossy = [] if HERE["lossless"] else ["--no-lossless"]
    arguments = ["--resize", "center_crop", "--size", "48", "--srgb", "--index", "none", *lossy]
    arguments += [
        "--animated",
        "first_frame",
        "--decode-check",
        "header",
        "--quiet",
        "--image-format",
        "avif",
    ]
    code = main(["export", str(photographs), str(tmp_path / "a"), "--quality", "80", *arguments])
    assert code == 0
    stage = ImageTransformStage(resize_mode="center_crop", image_size=48, color="srgb", **HERE)
    options = {"image_format": "avif", "quality": 80}
    rows = exported(photographs, tmp_path / "b", stage, **options)
    assert {row["format"] for row in rows.values()} == {"avif"}
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
