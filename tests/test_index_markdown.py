"""Text of others stays text in Markdown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pixsieve.export.indexes.markdown import block, code, table, text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain words, 1.5", "plain words, 1.5"),
        ("a_b*c", "a\\_b\\*c"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("[x](y)", "\\[x\\](y)"),
        ("a|b", "a\\|b"),
        ("# one\n- two\r\n\tthree", "\\# one - two three"),
        ("a\u202eb\x00c", "a b c"),
        ("&lt; \\", "\\&lt; \\\\"),
        (3, "3"),
    ],
)
def test_text(value, expected):
    assert text(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("a_b", "`a_b`"),
        ("a`b", "`` a`b ``"),
        ("``", "``` `` ```"),
        ("a|b", "`a\\|b`"),
        ("a\nb", "`a b`"),
    ],
)
def test_code(value, expected):
    assert code(value) == expected


def test_nothing_ends_a_block():
    assert block("a\n````\n```yaml\nb", "yaml") == "`````yaml\na\n````\n```yaml\nb\n`````"
    assert block("a\x1b[2J\u2028b", "") == "```\na [2J\nb\n```"


def test_a_table_has_a_line_for_each_row():
    assert table(["a", "b"], [["1", "2"], ["3", "4"]]) == (
        "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 | 4 |"
    )


WORDS = st.text(st.one_of(st.sampled_from("`|*_~<>[]()&#\\!$^ ab1.-+=:/\n"), st.characters()))
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def as_one_line(value):
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())


@given(WORDS)
def test_a_reader_of_markdown_sees_what_was_given(value):
    page = f"# a {text(value)}\n\n{table(['x', 'y', 'z'], [[text(value), code(value), 'end']])}\n"
    tokens = READER.parse(page)
    assert tokens[0].tag == "h1"
    shown = [
        "".join(child.content for child in token.children or ())
        for token in tokens
        if token.type == "inline"
    ]
    expected = as_one_line(value)
    assert shown == [f"a {expected}".strip(), "x", "y", "z", expected, expected, "end"]


@given(st.text(st.sampled_from("`~ab \n-#|")))
def test_a_block_ends_where_it_should(value):
    tokens = READER.parse(f"{block(value, 'yaml')}\n\nafter\n")
    assert [token.type for token in tokens] == [
        "fence",
        "paragraph_open",
        "inline",
        "paragraph_close",
    ]
    assert tokens[0].content == "\n".join(value.splitlines()) + "\n"
