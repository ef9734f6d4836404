"""Pictures of the same are found again by their thumbnails, different ones are told apart."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from pixsieve.errors import PlanError
from pixsieve.select.template import THRESHOLD, ncc

SIZE = (480, 360)


def photo(seed: int) -> Image.Image:
    """Return noise of all scales, as photographs have it."""
    rng = np.random.default_rng(seed)
    grey = np.zeros(SIZE[::-1])
    for cells, weight in ((4, 60), (12, 40), (40, 20), (120, 6)):
        noise = Image.fromarray(rng.normal(0, weight, (cells * 3 // 4, cells)).astype(np.float32))
        grey += np.asarray(noise.resize(SIZE, Image.Resampling.BICUBIC))
    return Image.fromarray(np.clip(grey + 120, 0, 255).astype(np.uint8))


def chart(seed: int, *, bars: int = 6) -> Image.Image:
    """Return bars of random heights between axes, which all charts share."""
    rng = np.random.default_rng(seed)
    picture = Image.new("L", SIZE, 255)
    draw = ImageDraw.Draw(picture)
    draw.line((50, 20, 50, 320, 450, 320), 0, 6)
    draw.rectangle((40, 20, 52, 320), 0)
    for at, height in enumerate(rng.integers(20, 60, bars)):
        draw.rectangle((70 + at * 60, 318 - int(height), 95 + at * 60, 318), 90)
    return picture


def thumbnails(*pictures: Image.Image, size: int = 96) -> np.ndarray:
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(each.resize((size, size), bicubic)) for each in pictures])


def agreement(one: Image.Image, other: Image.Image, size: int = 96, **options: float) -> float:
    pair = thumbnails(one, other, size=size)
    return float(ncc(pair, np.array([0]), np.array([1]), **options)[0])


def cropped(picture: Image.Image, share: float, x: float = 0.5, y: float = 0.5) -> Image.Image:
    width, height = (round(side * (1 - share)) for side in picture.size)
    left, top = round((picture.width - width) * x), round((picture.height - height) * y)
    return picture.crop((left, top, left + width, top + height))


def lettered(picture: Image.Image) -> Image.Image:
    found = picture.copy()
    ImageDraw.Draw(found).text((20, 320), "2024-05-01 12:00", 255)
    return found


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.resize((120, 90)),
        lambda p: p.resize((700, 300)),
        ImageOps.mirror,
        lambda p: ImageEnhance.Brightness(p).enhance(0.7),
        lambda p: ImageEnhance.Contrast(p).enhance(0.6),
        lettered,
        lambda p: cropped(p, 0.02),
        lambda p: cropped(p, 0.03, 0, 1),
        lambda p: cropped(p, 0.1),
        lambda p: cropped(p, 0.13, 0.8, 0.3),
        lambda p: cropped(p, 0.25, 0.9, 0.1),
        lambda p: ImageOps.mirror(cropped(p, 0.2, 0.1, 0.9)),
        lambda p: ImageOps.expand(p, 10, 255),
    ],
)
def test_a_changed_picture_is_found_again(change):
    assert agreement(photo(1), change(photo(1))) >= THRESHOLD


def test_a_copy_agrees_wholly():
    assert agreement(photo(1), photo(1)) == 1
    assert agreement(chart(1), ImageOps.mirror(chart(1))) == 1


def test_different_pictures_do_not_come_near():
    pictures = thumbnails(*(photo(seed) for seed in range(12)))
    first, second = np.triu_indices(12, 1)
    assert ncc(pictures, first, second).max() < 0.7


def test_a_turned_picture_and_a_smaller_part_are_not_the_same():
    assert agreement(photo(1), ImageOps.flip(photo(1))) < THRESHOLD
    assert agreement(photo(1), cropped(photo(1), 0.5)) < THRESHOLD


def best_of_all(one: np.ndarray, other: np.ndarray) -> float:
    """Return what laying the shrunk pictures on every place gives, in one order, as they are."""
    found = -1.0
    for side in range(66, 97):
        edges = np.arange(side + 1) * 96 / side
        weights = np.clip(
            np.minimum(edges[1:, None], np.arange(1, 97))
            - np.maximum(edges[:-1, None], np.arange(96)),
            0,
            1,
        )
        shape = weights @ one @ weights.T
        shape -= shape.mean()
        windows = np.lib.stride_tricks.sliding_window_view(other, (side, side))
        middle = windows - windows.mean(axis=(2, 3), keepdims=True)
        spread = np.sqrt((middle**2).sum(axis=(2, 3)) * (shape**2).sum())
        found = max(found, float(((middle * shape).sum(axis=(2, 3)) / spread).max()))
    return found


def test_the_value_is_the_best_that_there_is():
    whole = photo(3)
    pair = thumbnails(cropped(whole, 0.12, 0.3, 0.8), whole).astype(np.float64)
    wanted = best_of_all(pair[0], pair[1])
    assert agreement(cropped(whole, 0.12, 0.3, 0.8), whole) == pytest.approx(wanted, abs=1e-4)


def test_values_depend_on_their_pair_alone_and_not_on_its_order():
    whole = [photo(seed) for seed in range(5)]
    parts = [cropped(each, 0.03 * at, 0.2, 0.7) for at, each in enumerate(whole)]
    pictures = thumbnails(*whole, *parts, chart(1), chart(2), Image.new("L", SIZE, 9))
    first, second = (each.ravel() for each in np.indices((len(pictures), len(pictures))))
    together = ncc(pictures, first, second)
    assert np.array_equal(together, ncc(pictures, second, first))
    assert np.array_equal(together[::-7], ncc(pictures, first[::-7], second[::-7]))
    alone = [ncc(pictures, first[[at]], second[[at]])[0] for at in range(len(first))]
    assert np.array_equal(together, alone)
    assert np.array_equal(together.reshape(13, 13).diagonal(), np.ones(13))


def test_graphics_that_share_a_frame_are_told_apart():
    pairs = thumbnails(chart(1), chart(2))
    centred = pairs.reshape(2, -1) - pairs.reshape(2, -1).mean(axis=1, keepdims=True)
    plain = np.corrcoef(centred)[0, 1]
    assert THRESHOLD < plain < 0.925
    assert agreement(chart(1), chart(2)) < THRESHOLD
    assert agreement(chart(1), chart(2)) == pytest.approx(1 - 2 * (1 - plain), abs=0.02)
    buffer = chart(1).resize((240, 180)).resize(SIZE)
    assert agreement(chart(1), buffer) >= THRESHOLD


def test_flat_pictures_are_equal_if_their_grey_is():
    greys = [Image.new("L", SIZE, level) for level in (100, 102, 103)]
    pictures = thumbnails(*greys, photo(1))
    found = ncc(pictures, np.array([0, 0, 1, 0, 3]), np.array([1, 2, 2, 3, 1]))
    assert found.tolist() == [1, 0, 1, 0, 0]


def test_soft_pictures_are_compared_too():
    """A gradient has no local contrast to be found by."""
    gradient = Image.fromarray(np.tile(np.linspace(40, 200, 480).astype(np.uint8), (360, 1)))
    assert agreement(gradient, ImageEnhance.Brightness(gradient).enhance(0.8)) >= THRESHOLD
    assert agreement(gradient, gradient.rotate(90)) < THRESHOLD


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.6, 0.85, 0.95, 1.0])
def test_a_threshold_decides_as_the_whole_search_does(threshold):
    whole = [photo(seed) for seed in range(4)]
    pictures = thumbnails(*whole, *(cropped(each, 0.15) for each in whole), *map(chart, range(4)))
    first, second = np.triu_indices(len(pictures), 1)
    given, full = (ncc(pictures, first, second, each) for each in (threshold, -1.0))
    high = given >= threshold
    assert np.array_equal(given[high], full[high])
    assert not (high & (full < threshold)).any()
    if threshold >= THRESHOLD:
        assert np.array_equal(high, full >= threshold)


@pytest.mark.parametrize("size", [32, 64, 97, 256])
def test_thumbnails_of_other_sizes_are_compared_as_well(size):
    assert agreement(photo(1), cropped(photo(1), 0.1), size) >= THRESHOLD
    assert agreement(photo(1), photo(2), size) < 0.7


def test_rows_of_bytes_are_squares_as_well():
    pictures = thumbnails(photo(1), cropped(photo(1), 0.1))
    pair = np.array([0]), np.array([1])
    assert ncc(pictures.reshape(2, -1), *pair) == ncc(pictures, *pair)


def test_no_pair_is_no_value():
    none = np.empty(0, np.int64)
    assert ncc(thumbnails(photo(1)), none, none).shape == (0,)
    assert ncc(np.empty((0, 96, 96), np.uint8), none, none).dtype == np.float32


@pytest.mark.parametrize("shape", [(2, 7, 7), (2, 257, 257), (2, 96, 97), (2, 101)])
def test_thumbnails_that_are_no_squares_of_a_size_are_refused(shape):
    with pytest.raises(PlanError, match="ThumbnailStage"):
        ncc(np.zeros(shape, np.uint8), np.array([0]), np.array([1]))
