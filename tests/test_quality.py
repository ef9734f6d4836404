"""Every measure equals its formula where the answer is known, and none trips over an odd image.

The formulas are written out anew here, in floating point over whole images.
"""

import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter, ImageStat

from pixsieve import image
from pixsieve.engine.inline import InlineExecutor
from pixsieve.errors import PlanError
from pixsieve.pipeline import Pipeline
from pixsieve.scorers import jpeg_tables, quality
from pixsieve.stage import SHARED_PIXELS, ImageBatch
from pixsieve.stages import ImageQualityStage, ImageReaderStage, ImageWriterStage
from pixsieve.testing import images

STAGE = ImageQualityStage()


def measure(pixels: np.ndarray, mode: str = "RGB", encoded: bytes = b"") -> dict[str, object]:
    height, width = pixels.shape[:2]
    return quality.measure(pixels.astype(np.uint8), encoded, width, height, mode)


def plain(*colour: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def gray(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels.astype(np.uint8)[..., None], 3, axis=2)


def photo(seed: int = 0, width: int = 120, height: int = 90) -> np.ndarray:
    return np.asarray(images.pixels(seed, width, height))


# Distribution


def test_plain_grounds_have_the_brightness_that_they_have():
    assert measure(plain(0))["brightness"] == 0
    assert measure(plain(255))["brightness"] == 1
    assert measure(plain(255, 0, 0))["brightness"] == pytest.approx(76 / 255)  # .299 * 255
    half = plain(0)
    half[:30] = 255
    found = measure(half)
    assert (found["brightness"], found["contrast"], found["entropy"]) == (0.5, 0.5, 1)
    assert (found["overexposed"], found["underexposed"]) == (0.5, 0.5)


def test_luma_measures_equal_their_formulas():
    pixels = photo()
    luma = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    shares = np.unique(luma, return_counts=True)[1] / luma.size
    found = measure(pixels)
    assert found["brightness"] == pytest.approx(luma.mean() / 255)
    assert found["contrast"] == pytest.approx(luma.std() / 255)
    assert found["entropy"] == pytest.approx(-(shares * np.log2(shares)).sum())


def test_all_levels_in_equal_number_have_eight_bits_and_known_ends():
    ramp = gray(np.arange(256).reshape(16, 16))
    found = measure(ramp)
    assert found["entropy"] == pytest.approx(8)
    assert found["overexposed"] == pytest.approx(6 / 256)  # 250 to 255
    assert found["underexposed"] == pytest.approx(6 / 256)  # 0 to 5


def test_colourfulness_equals_its_formula():
    pixels = photo()
    r, g, b = np.moveaxis(pixels.astype(float), 2, 0)
    rg, yb = r - g, (r + g) / 2 - b
    wanted = math.hypot(rg.std(), yb.std()) + 0.3 * math.hypot(rg.mean(), yb.mean())
    assert measure(pixels)["colourfulness"] == pytest.approx(wanted)
    assert measure(plain(255, 0, 0))["colourfulness"] == pytest.approx(0.3 * math.hypot(255, 127.5))
    assert measure(gray(pixels[..., 0]))["colourfulness"] == 0


def test_gray_is_what_shows_no_colour_however_it_is_stored():
    levels = photo()[..., 0]
    assert measure(gray(levels))["is_gray"]
    almost = np.minimum(gray(levels), 247)
    almost[..., 2] += 8
    assert measure(almost)["is_gray"]
    almost[3, 5] = (10, 10, 19)  # one pixel by one level too much
    assert not measure(almost)["is_gray"]
    assert not measure(plain(100, 109, 100))["is_gray"]
    assert [measure(gray(levels), mode)["is_grayscale"] for mode in ("RGB", "L", "I;16", "1")] == [
        False, True, True, True,
    ]  # fmt: skip


# Space


def laplacian_variance(levels: np.ndarray) -> float:
    g = levels.astype(float)
    found = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
    return float(found.var())


def test_sharpness_is_the_variance_of_the_laplacian():
    board = np.indices((40, 50)).sum(axis=0) % 2 * 100
    assert measure(gray(board))["sharpness"] == 400**2  # the Laplacian is 400 and -400
    ramp = np.tile(np.arange(50), (40, 1)) * 5
    assert measure(gray(ramp))["sharpness"] == 0
    levels = photo()[..., 0]
    assert measure(gray(levels))["sharpness"] == pytest.approx(laplacian_variance(levels))


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_sharpness_is_that_of_176_pixels(factor):
    small = photo(1, 250, 176)[..., 0]
    large = small.repeat(factor, axis=0).repeat(factor, axis=1)
    assert measure(gray(large))["sharpness"] == pytest.approx(laplacian_variance(small), rel=1e-3)


def test_sharpness_does_not_jump_where_the_decode_takes_another_scale():
    found = [
        measure(np.asarray(images.pixels(0, 1200, 900).resize((side * 4 // 3, side))))["sharpness"]
        for side in (176, 177, 256, 257, 351, 353, 512, 513, 600, 1023, 1025)
    ]
    assert max(found) < 2 * min(found)


def test_blur_lowers_sharpness_and_the_blurry_score():
    sharp = images.pixels(0, 640, 480)
    scores = [
        measure(np.asarray(sharp.filter(ImageFilter.GaussianBlur(radius))))
        for radius in (0, 2, 6, 20)
    ]
    for name in ("sharpness", "blurry_score"):
        values = [score[name] for score in scores]
        assert values == sorted(values, reverse=True), name


def framed(top: int, bottom: int, left: int, right: int, colour: int = 0) -> np.ndarray:
    inner = np.clip(photo(2, 100, 70), 40, 200)
    inner[0, 0], inner[-1, -1], inner[0, -1], inner[-1, 0] = 40, 80, 120, 200
    widths = ((top, bottom), (left, right), (0, 0))
    return np.pad(inner, widths, constant_values=colour)


@pytest.mark.parametrize(
    "sides", [(0, 0, 0, 0), (10, 0, 0, 0), (9, 12, 0, 0), (0, 0, 7, 30), (1, 2, 3, 4), (0, 1, 0, 0)]
)
@pytest.mark.parametrize("colour", [0, 255])
def test_the_border_is_the_share_of_the_frame(sides, colour):
    pixels = framed(*sides, colour)
    share = 1 - 7000 / (pixels.shape[0] * pixels.shape[1])
    assert measure(pixels)["border"] == pytest.approx(share)


def test_borders_may_differ_in_colour_and_be_a_little_noisy():
    pixels = framed(8, 8, 0, 0)
    pixels[-8:] = 250
    pixels[:8] = np.random.default_rng(0).integers(0, 6, (8, 100, 3))
    assert measure(pixels)["border"] == pytest.approx(16 / 86)


def test_a_gradient_is_no_border_and_one_colour_is_all_border():
    sky = gray(np.tile(np.arange(200)[:, None], (1, 90)))
    assert measure(sky)["border"] == pytest.approx(22 / 200)  # what is within 10 levels of an end
    assert measure(plain(1, 2, 3))["border"] == 1
    two = plain(0)
    two[30:] = 255
    assert measure(two)["border"] == 1


# CleanVision


def cleanvision(pixels: np.ndarray) -> dict[str, float]:
    """Return the scores by the formulas of CleanVision 0.3.7."""
    picture = Image.fromarray(pixels)
    r, g, b = np.moveaxis(pixels.astype(int), 2, 0)
    brightness = np.sqrt(0.241 * (r * r) + 0.691 * (g * g) + 0.068 * (b * b)) / 255
    low, high = np.percentile(brightness, [5, 99])
    ratio = max(picture.size) / 64
    if ratio > 1:
        size = tuple(max(int(side // ratio), 1) for side in picture.size)
        small = picture.resize(size).convert("L")
    else:
        small = picture.convert("L")
    edges = math.sqrt(ImageStat.Stat(small.filter(ImageFilter.FIND_EDGES)).var[0])
    spread = 1 - math.exp(-0.01 * np.std(small.histogram()))
    return {
        "dark": high,
        "light": 1 - low,
        "low_information": min(1, 0.1 * picture.entropy()),
        "blurry": min(1, 1 - math.exp(-0.01 * edges) + (spread if spread > 0.18 else 0)),
        "odd_aspect_ratio": min(picture.width / picture.height, picture.height / picture.width),
    }


def looks() -> dict[str, np.ndarray]:
    smooth = np.linspace(0, 60, 96) + np.linspace(0, 60, 72)[:, None]
    return {
        "photo": photo(),
        "small": photo(3, 60, 45),
        "dark": photo() // 5,
        "light": 255 - (255 - photo()) // 30,
        "flat": photo() // 150 + 120,
        "blurry": gray(smooth),
        "narrow": photo(4, 180, 40),
    }


@pytest.mark.parametrize("look", looks())
def test_scores_and_flags_are_those_of_cleanvision(look):
    pixels = looks()[look]
    wanted, found = cleanvision(pixels), score(pixels)
    thresholds = {
        "dark": 0.32, "light": 0.05, "low_information": 0.3, "blurry": 0.29,
        "odd_aspect_ratio": 0.35,
    }  # fmt: skip
    for name, threshold in thresholds.items():
        # It shrinks before it makes luma: for blur that differs by a rounding.
        close = 0.01 if name == "blurry" else 1e-6
        assert found[f"{name}_score"] == pytest.approx(wanted[name], abs=close), name
        assert found[f"is_{name}"] == (wanted[name] < threshold), name


def test_each_look_sets_its_flag():
    flags = {"dark", "light", "low_information", "blurry", "odd_aspect_ratio"}
    wanted = {
        "photo": set(), "small": set(), "dark": {"dark"}, "light": {"light"},
        "flat": {"low_information"}, "blurry": {"blurry"}, "narrow": {"odd_aspect_ratio"},
    }  # fmt: skip
    for look, pixels in looks().items():
        found = score(pixels)
        assert {name for name in flags if found[f"is_{name}"]} >= wanted[look], look
    assert not any(score(photo())[f"is_{name}"] for name in flags)


def test_the_entropy_of_a_file_that_stores_grey_is_that_of_its_one_channel():
    levels = photo()[..., 0]
    wanted = 0.1 * Image.fromarray(levels).entropy()
    assert measure(gray(levels), "L")["low_information_score"] == pytest.approx(wanted)


def test_thresholds_are_the_users():
    pixels = photo()
    plainly = score(pixels)
    for name in ("dark", "light", "low_information", "blurry", "odd_aspect_ratio"):
        value = plainly[f"{name}_score"]
        below = ImageQualityStage(**{f"{name}_threshold": value - 0.01})
        above = ImageQualityStage(**{f"{name}_threshold": min(1, value + 0.01)})
        assert not score(pixels, below)[f"is_{name}"]
        assert score(pixels, above)[f"is_{name}"] == (value < 1)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_off_the_scale_is_refused_before_any_work(threshold):
    with pytest.raises(PlanError, match=r"blurry_threshold .* from 0 to 1"):
        ImageQualityStage(blurry_threshold=threshold).check(pa.schema([]))


# JPEG


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_the_setting_of_a_jpeg_is_found_exactly(mode):
    for setting in range(1, 101):
        data = images.photo(0, 16, 16, mode=mode, quality=setting)
        assert jpeg_tables.quality(data) == setting


def test_tables_that_are_no_scaled_ones_are_near_some():
    table = [12, *range(13, 76)]
    near = io.BytesIO()
    images.pixels(0, 16, 16).save(near, "JPEG", qtables=[table, table])
    assert 20 < jpeg_tables.quality(near.getvalue()) < 80
    ones = io.BytesIO()
    images.pixels(0, 16, 16).save(ones, "JPEG", qtables=[[1] * 64, [1] * 64])
    assert jpeg_tables.quality(ones.getvalue()) == 100


def test_wide_tables_and_fill_bytes_are_read():
    data = images.photo(0, 16, 16, quality=83)
    at = data.index(b"\xff\xdb")
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    table = data[at + 5 : at + 69]
    wide = b"\x10" + b"".join(bytes([0, value]) for value in table)
    segment = b"\xff\xff\xff\xdb" + (2 + len(wide)).to_bytes(2, "big") + wide
    rest = data[at + 2 + length :]
    assert jpeg_tables.quality(data[:at] + segment + rest) == 83


def test_other_formats_and_broken_headers_have_no_setting():
    for name, data in images.every_format().items():
        assert (jpeg_tables.quality(data) is None) == (image.sniff(data) != "jpeg"), name
    data = images.photo(0, 16, 16)
    for stop in range(300):
        jpeg_tables.quality(data[:stop])  # and does not raise
    for junk in (
        b"",
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd8" + b"\xff" * 10_000_000,
        b"\xff\xd8\xff\xe0\0\0" * 999,
    ):
        assert jpeg_tables.quality(junk) is None


# The stage


def score(pixels: np.ndarray, stage: ImageQualityStage = STAGE, mode: str = "RGB"):
    return scores([pixels], stage, mode)[0]


def scores(pixels: list[np.ndarray], stage: ImageQualityStage = STAGE, mode: str = "RGB"):
    rows = pa.record_batch(
        {
            "width": pa.array([each.shape[1] for each in pixels], pa.int32()),
            "height": pa.array([each.shape[0] for each in pixels], pa.int32()),
            "mode": [mode] * len(pixels),
        }
    )
    found = stage.load()(ImageBatch(rows, (b"",) * len(pixels), tuple(pixels)))
    assert found.schema.equals(stage.adds(), check_metadata=True)
    companion = stage.companion()
    flags = companion.load()(ImageBatch(found.select(companion.reads()), (), ()))
    assert flags.schema.equals(companion.adds(), check_metadata=True)
    return [
        measures | set_ for measures, set_ in zip(found.to_pylist(), flags.to_pylist(), strict=True)
    ]


SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (2, 30_000), (30_000, 2), (1, 70_000), (257, 5)]


@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("what", ["noise", "plain"])
def test_an_odd_shape_has_defined_measures(height, width, what):
    pixels = plain(9, 9, 9, height=height, width=width)
    if what == "noise":
        pixels = np.random.default_rng(0).integers(0, 256, pixels.shape, dtype=np.uint8)
    (found,) = scores([pixels])
    missing = {name for name, value in found.items() if value is None}
    assert missing == ({"jpeg_quality"} | ({"sharpness"} if min(height, width) < 3 else set()))
    assert all(math.isfinite(value) for value in found.values() if value is not None)
    shares = [name for name, (_, scale, *_) in quality._COLUMNS.items() if scale == "0 to 1"]
    assert len(shares) == 9
    assert all(0 <= found[name] <= 1 for name in shares)


def test_an_image_is_scored_alike_alone_and_in_any_company():
    pixels = [photo(seed, 150 + 40 * seed, 400 - 30 * seed) for seed in range(5)]
    together = scores(pixels)
    assert scores(pixels[::-1])[::-1] == together
    assert [score(each) for each in pixels] == together


def test_the_grid_is_close_to_all_pixels():
    """No pattern of rows or columns may hide from it, as from a fixed distance."""
    for period in range(2, 9):
        rows = np.arange(720)[:, None] % period == 0
        found = measure(gray(np.broadcast_to(rows * 255, (720, 960))))
        assert found["brightness"] == pytest.approx(1 / period, abs=0.12)
    pixels = photo(7, 960, 720)
    luma = np.asarray(Image.fromarray(pixels).convert("L")).astype(float)
    found = measure(pixels)
    assert found["brightness"] == pytest.approx(luma.mean() / 255, abs=0.01)
    assert found["contrast"] == pytest.approx(luma.std() / 255, abs=0.01)
    assert found["dark_score"] == pytest.approx(cleanvision(pixels)["dark"], abs=0.01)


def test_a_run_measures_files_of_every_kind(tmp_path):
    """Through the whole pass: scaled decode, orientation and stored modes included."""
    files = {
        "jpeg.jpg": images.photo(0, 97, 61, quality=77),
        "gray.png": images.photo(0, 97, 61, "PNG", mode="L"),
        "turned.jpg": images.oriented_jpeg(6, 0, 96, 64),
        "large.jpg": images.photo(0, 4 * SHARED_PIXELS, 2 * SHARED_PIXELS),
        "cmyk.jpg": images.cmyk_jpeg(),
        "dot.png": images.photo(0, 1, 1, "PNG"),
    }
    for name, data in files.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    pipeline = Pipeline()
    for stage in (
        ImageReaderStage(str(tmp_path / "in")),
        STAGE,
        ImageWriterStage(output_dir=str(tmp_path / "out")),
    ):
        pipeline.add_stage(stage)
    pipeline.run(InlineExecutor())
    (sidecar,) = (tmp_path / "out").glob("*.parquet")
    found = {row["original_path"]: row for row in pq.read_table(sidecar).to_pylist()}
    assert len(found) == len(files)
    assert found["jpeg.jpg"]["jpeg_quality"] == 77
    assert found["gray.png"]["jpeg_quality"] is None
    assert found["gray.png"]["is_grayscale"]
    assert not found["jpeg.jpg"]["is_grayscale"]
    assert found["turned.jpg"]["aspect_ratio"] == pytest.approx(64 / 96)
    assert found["large.jpg"]["megapixels"] == pytest.approx(2.097152)
    assert found["large.jpg"]["odd_aspect_ratio_score"] == pytest.approx(0.5)
    assert found["dot.png"]["sharpness"] is None
    for row in found.values():
        assert row["brightness"] is not None


def test_columns_say_what_their_numbers_mean_and_the_docstring_names_them():
    for field in STAGE.adds():
        assert set(field.metadata) == {b"scale", b"unit", b"better", b"source"}
        assert field.metadata[b"better"] in {b"higher", b"lower", b"neither"}
        assert field.metadata[b"scale"]
        assert field.metadata[b"source"]
        assert field.name in ImageQualityStage.__doc__
    assert "OddSizeStage" in ImageQualityStage.__doc__
