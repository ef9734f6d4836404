"""The picture of samples: few, upright, evenly spaced, the same each time."""

import io

import numpy as np
import pytest
from PIL import Image

from pixsieve.export.indexes.samples import chosen, picture
from pixsieve.schema import Problem
from pixsieve.scorers.guard import NoGuard
from pixsieve.testing import exports, images


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(1, [0]), (3, [0, 1, 2]), (8, list(range(8))), (16, list(range(1, 16, 2)))],
)
def test_samples_are_evenly_spaced(samples, expected):
    assert chosen(samples) == expected


def test_of_many_samples_eight_are_chosen():
    found = chosen(1_000_003)
    assert len(found) == 8
    assert found[0] > 0
    assert found[-1] < 1_000_003
    assert set(np.diff(found).tolist()) <= {125_000, 125_001}


def opened(dataset):
    return Image.open(io.BytesIO(picture(dataset, NoGuard())))


@pytest.mark.parametrize(("samples", "size"), [(1, (176, 176)), (7, (680, 344)), (30, (680, 344))])
def test_size(tmp_path, samples, size):
    found = [exports.members(number) for number in range(samples)]
    sheet = opened(exports.finished_dataset(tmp_path / "out", found))
    assert (sheet.format, sheet.size) == ("JPEG", size)


def test_every_format_is_shown_and_the_bytes_are_the_same_each_time(tmp_path):
    one, again = exports.mixed(tmp_path / "a"), exports.mixed(tmp_path / "b")
    assert picture(one, NoGuard()) == picture(again, NoGuard())
    pixels = np.asarray(opened(one))
    for number in range(8):
        top, left = 8 + number // 4 * 168, 8 + number % 4 * 168
        assert pixels[top : top + 160, left : left + 160].std() > 5


def test_images_are_upright(tmp_path):
    found = [{"jpg": images.oriented_jpeg(turned, 1, 320, 160)} for turned in (1, 6)]
    pixels = np.asarray(opened(exports.finished_dataset(tmp_path / "out", found)))
    wide, high = pixels[8:168, 8:168], pixels[8:168, 176:336]
    assert wide[10].min() > 250  # paper above
    assert wide[80, 5:-5].min(axis=1).min() < 250
    assert high[:, 10].min() > 250  # paper beside
    turned = np.rot90(wide[40:120], -1).astype(int)
    assert abs(turned - high[:, 40:120]).mean() < 12


def test_an_image_that_cannot_be_decoded_is_grey(tmp_path):
    dataset = exports.plain(tmp_path / "out")
    tar = dataset.folder / dataset.shards[0].tar.name
    place = dataset.sidecar(dataset.shards[0]).to_pylist()[0]
    data = bytearray(tar.read_bytes())
    start = place["member_offset"]
    data[start : start + place["member_size"]] = bytes(place["member_size"])
    tar.write_bytes(data)
    pixels = np.asarray(opened(dataset))
    assert pixels[60:100, 60:100].std() < 2
    assert 200 < pixels[88, 88, 0] < 220


def test_an_image_that_ended_a_worker_is_grey(tmp_path):
    guard = NoGuard({0: Problem.DECODER_CRASH})
    sheet = Image.open(io.BytesIO(picture(exports.plain(tmp_path / "out"), guard)))
    assert np.asarray(sheet)[60:100, 60:100].std() < 2
