"""What libtiff finds is told as the image's reason, and to nobody else."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from pixsieve.image import ImageProblemError
from pixsieve.testing import images
from pixsieve.testing.image_kinds import decode, encode, reason, scratched

EVERY_FORMAT = images.every_format()


SCRATCHED_TIFFS = {
    "lzma": scratched(images.photo(format="TIFF", compression="lzma")),
    "lzw": scratched(images.photo(format="TIFF", compression="tiff_lzw")),
    "fax": scratched(images.photo(format="TIFF", mode="1", compression="group4")),
}
LIBTIFF_SAYS = {
    "lzma": "Decoding error at scanline 0",
    "lzw": "Using code not yet in table",
    "fax": "Bad code word",  # and goes on
}


@pytest.mark.parametrize("compression", SCRATCHED_TIFFS)
def test_what_libtiff_finds_is_the_reason_and_is_not_printed(compression, capfd):
    data = SCRATCHED_TIFFS[compression]
    assert reason(data).startswith(f"decode_failed: libtiff: {LIBTIFF_SAYS[compression]}")
    with pytest.raises(ImageProblemError, match=LIBTIFF_SAYS[compression]):
        decode(data)
    with pytest.raises(ImageProblemError, match=LIBTIFF_SAYS[compression]):
        encode(data, "png")
    assert capfd.readouterr() == ("", "")


def test_threads_hear_of_their_own_images_alone():
    data = [*SCRATCHED_TIFFS.values(), EVERY_FORMAT["tiff"]] * 20
    expected = [reason(each) for each in data]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(reason, data)) == expected


def test_whoever_else_reads_tiffs_in_the_process_still_hears_of_errors(capfd):
    with Image.open(io.BytesIO(SCRATCHED_TIFFS["fax"])) as found:
        found.load()
    assert "Bad code word" in capfd.readouterr().err
