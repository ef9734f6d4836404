"""Captions that say nothing are told from those that do, by counts that can be checked by hand."""

import time

import pyarrow as pa
import pytest

from pixsieve.scorers.caption_quality import LOOKED_AT, measure
from pixsieve.stage import ImageBatch
from pixsieve.stages import CaptionQualityStage

STAGE = CaptionQualityStage()


def scores(*captions: str | None) -> list[dict[str, object]]:
    rows = pa.record_batch({"caption": pa.array(captions, pa.string())})
    found = STAGE.load()(ImageBatch(rows, (), ()))
    assert found.schema.equals(STAGE.adds(), check_metadata=True)
    return found.to_pylist()


def test_length_is_in_characters_and_words_between_white_space():
    found = measure("  Zwei  Äpfel,\tein Apfel\n")
    assert found["caption_chars"] == 22
    assert found["caption_words"] == 4
    assert measure("\U0001f40e on 海滩")["caption_chars"] == 7


def test_no_caption_is_null_and_an_empty_one_is_not():
    missing, empty, blank = scores(None, "", " \n ")
    assert set(missing.values()) == {None}
    assert empty == blank
    assert empty == {
        "caption_chars": 0, "caption_words": 0, "caption_language": None, "caption_alnum": 0,
        "caption_repeated": 0, "caption_url": 0, "caption_boilerplate": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("caption", "share"),
    [
        ("abc 12", 1), ("a-b-", 0.5), ("!!!", 0), ("a_b", 2 / 3), ("été", 1),
        ("e\u0301te\u0301", 1), ("घोड़े", 1), ("ผู้ชาย", 1), ("海滩。", 2 / 3),
    ],
)  # fmt: skip
def test_alnum_is_the_share_of_letters_and_digits_with_their_marks(caption, share):
    assert measure(caption)["caption_alnum"] == pytest.approx(share)


@pytest.mark.parametrize(
    ("caption", "share"),
    [
        ("abcdefgh", 0), ("abcd", 0), ("aaaaaa", 1 / 2), ("aaaaaaaaa", 4 / 5),
        ("blah BLAH  blah", 5 / 10), ("照片照片照片照片", 2 / 4),
    ],
)  # fmt: skip
def test_repeated_is_the_share_of_runs_that_stand_ahead(caption, share):
    assert measure(caption)["caption_repeated"] == pytest.approx(share)


def test_ordinary_captions_hardly_repeat_and_spam_does():
    assert measure("A man and a woman on the beach with the dog")["caption_repeated"] < 0.1
    assert measure("buy now " * 5)["caption_repeated"] > 0.7


@pytest.mark.parametrize(
    ("caption", "urls"),
    [
        ("see https://a.example/x?y=1 now", "https://a.example/x?y=1"),
        ("www.nature-photos.example", "www.nature-photos.example"),
        ("Photo by shop.example.com/cats/1 today", "shop.example.com/cats/1"),
        ("EXAMPLE.COM", "EXAMPLE.COM"),
        ("mail joe@example.com e.g. No.5 at 3.30 in the U.S. end.It starts", ""),
        ("file.compose and node.js", ""),
    ],
)
def test_url_is_the_share_of_characters_in_addresses(caption, urls):
    assert measure(caption)["caption_url"] == pytest.approx(len(urls) / len(caption))


def test_the_language_is_that_of_the_words_not_of_an_address():
    assert measure("www.example.com/foo great")["caption_language"] is None
    assert measure("a view of the sea, www.est.fr/le/la")["caption_language"] == "en"


@pytest.mark.parametrize(
    "caption",
    [
        "IMG_1234.jpg", "img-0042", "DSC00123.JPG", "DSCN 0001", "P1010023", "my cat (2).png",
        "20210304_112233", "Screenshot 2021-01-01 at 10.00.00", "WhatsApp Image 2020-01-01",
        "0f8fad5b-d9cb-469f-a165-70867728950e", "d41d8cd98f00b204e9800998ecf8427e", "image 12",
        "Image", "[PHOTO]", "Alt text", "no  image", "untitled", "N/A", "null", "thumbnail.",
        "Click to enlarge: red car", "Sorry, no image available", "Sofa. Bild vergrößern",
        "Image may contain: one person", "Cliquez pour agrandir",
    ],
)  # fmt: skip
def test_boilerplate(caption):
    assert measure(caption)["caption_boilerplate"]


@pytest.mark.parametrize(
    "caption",
    [
        "A red car", "Image of a red car", "My photo 3 of the sea", "P-51 Mustang", "Boeing 747",
        "1984", "New York, 1920", "Canon EOS 5D", "Photographers at the beach", "Scandinavia",
        "The default colours of a banner", "Cafe on the corner", "DSC football team of 1904",
        "a jpg of a png", "Deadbeef", "Null Island sign", "decade", "effaced facade",
    ],
)  # fmt: skip
def test_what_says_something_is_no_boilerplate(caption):
    assert not measure(caption)["caption_boilerplate"]


@pytest.mark.parametrize(
    "piece",
    ["a", "a-", "a.", "www.", "1 ", "img ", "img 1 at 1.", "0", "(", "\u0301", "\n", "ab12-", "é "],
)
def test_no_text_makes_it_slow(piece):
    """A pattern that goes back and forth would take minutes."""
    start = time.process_time()
    found = measure(piece * (1_000_000 // len(piece)) + "x")
    assert time.process_time() - start < 2
    assert found["caption_chars"] > LOOKED_AT or piece == "\n"


def test_columns_say_what_their_numbers_mean():
    for field in STAGE.adds():
        assert set(field.metadata) == {b"scale", b"unit", b"better", b"source"}
        assert field.name in CaptionQualityStage.__doc__
    assert STAGE.needs.pixels is None
    assert not STAGE.needs.encoded
