from hypothesis import given
from hypothesis import strategies as st

from pixsieve.text import printable


@given(st.text(st.characters(exclude_categories=())))
def test_whatever_comes_in_what_goes_out_can_be_printed(text):
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()


@given(st.text(st.characters(exclude_categories=("C", "Z"))))
def test_plain_text_stays_as_it_is(text):
    assert printable(text) == text


def test_escapes_say_which_character_it_was():
    assert printable("a\x1b[31m\n\u202e\ud800") == r"a\x1b[31m\n\u202e\ud800"
