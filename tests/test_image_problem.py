"""Whatever goes wrong with an image is a problem of that image."""

from __future__ import annotations

import pickle

import pytest
import simplejpeg
from PIL import ImageFile

from pixsieve import image
from pixsieve.image import ImageProblemError
from pixsieve.schema import Problem
from pixsieve.testing import images
from pixsieve.testing.image_kinds import problem

EVERY_FORMAT = images.every_format()


def test_a_setting_of_the_process_does_not_let_cut_images_pass(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert problem(images.truncated(EVERY_FORMAT["bmp"])) == Problem.TRUNCATED_IMAGE
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_running_out_of_memory_is_a_problem_of_the_image(monkeypatch):
    def exhausted(*_args, **_options):
        raise MemoryError

    data = images.photo()
    header = image.probe(data)
    monkeypatch.setattr(simplejpeg, "decode_jpeg", exhausted)
    with pytest.raises(ImageProblemError) as caught:
        image.check_decode(data, header)
    assert caught.value.problem == Problem.OUT_OF_MEMORY


def test_a_problem_comes_through_pickle_whole():
    sent = pickle.loads(pickle.dumps(ImageProblemError(Problem.BAD_HEADER, "why")))  # noqa: S301
    assert (sent.problem, sent.detail) == (Problem.BAD_HEADER, "why")
