"""Text of others stays text in Markdown."""

import pytest

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
