"""Filters are refused before any work unless they are a boolean over one row, always the same."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.errors import PlanError
from pixsieve.select import expression

COLUMNS = pa.schema(
    [
        ("image_id", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("caption", pa.string()),
        ("score", pa.float64()),
        ("tags", pa.list_(pa.string())),
    ]
)


def table(**columns: list[object]) -> pa.Table:
    length = len(next(iter(columns.values())))
    return pa.table(
        [pa.array(columns.get(field.name, [None] * length), field.type) for field in COLUMNS],
        schema=COLUMNS,
    )


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("width > 1", ("width",)),
        ("height > width", ("width", "height")),  # in the order of the schema
        ("least(width, height) >= 256 and caption is not null", ("width", "height", "caption")),
        ("WIDTH > 1 and \"Caption\" = 'a'", ("width", "caption")),
        ("caption ilike '%cat%' or caption ~ '^a'", ("caption",)),
        ("width between 1 and 3 and height in (1, 2)", ("width", "height")),
        ("case when width > 1 then true else false end", ("width",)),
        ("try_cast(caption as int) > 1 and length(caption) < 9", ("caption",)),
        ("tags[1] = 'a' or list_contains(tags, 'b')", ("tags",)),
        ("list_filter([1, 2], lambda x: x > width) = [1]", ("width",)),
        ("[t for t in tags if t > caption] = tags", ("caption", "tags")),
        ("list_filter([1], lambda width: width > 0) = [1] and width > 5", ("width",)),
        ("(caption -> '$.x') is null", ("caption",)),
        ("caption ->> '$.x' = 'a'", ("caption",)),
        ("width > 1 -- a remark", ("width",)),
        ("true", ()),
    ],
)
def test_names_the_columns_that_it_reads(text: str, reads: tuple[str, ...]):
    assert expression.check(text, COLUMNS) == reads


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("exists (select 1)", "a subquery"),
        ("width > (select 1)", "a subquery"),
        ("width > any(select 1)", "a subquery"),
        ("(from '/etc/passwd') is null", "a subquery"),
        ("exists (from read_text('/etc/passwd'))", "a subquery"),
        ("row_number() over () > 1", "a window function"),
        ("columns('w.*') > 1", "a star"),
        ("*", "a star"),
        ("?", "a parameter"),
        ("$1", "a parameter"),
        ("#1", "a positional reference"),
        ("sum(width) > 1", "calls sum()"),
        ("count(*) > 1", "calls count_star()"),
        ("any_value(width) > 1", "calls any_value()"),
        ("random() > 0.5", "calls random()"),
        ("uuid() is null", "calls uuid()"),
        ("now() is null", "calls now()"),
        ("age(timestamp '2020-01-01') > interval 1 day", "calls age()"),
        ("current_localtimestamp() is null", "calls current_localtimestamp()"),
        ("version() = '1'", "calls version()"),
        ("current_date > date '2020-01-01'", "'current_date'"),
        ("unnest([true, false])", "calls unnest()"),
        ("read_text('/etc/passwd') is null", "calls read_text()"),
        ("glob('/etc/*') is null", "calls glob()"),
        ("getenv('HOME') is null", "calls getenv()"),
        ("query('select 1') is null", "calls query()"),
        ("nextval('s') > 1", "calls nextval()"),
        ("leest(width, 1) > 1", "did you mean 'least'?"),
        ("captn is null", "did you mean 'caption'?; the columns are: image_id, width, height"),
        ("samples.width > 1", "'samples'"),
        ("(captn -> '$.x') is null", "captn"),
        ("caption", "gives VARCHAR, a boolean was expected"),
        ("width + 1", "gives INTEGER, a boolean was expected"),
        ("null", "a boolean was expected"),
        ("caption > 3", "does not fit the columns' types"),
        ("width > 'abc'", "does not fit the columns' types"),
        ("'now'::timestamp is null", "does not fit the columns' types"),
        ("width >", "is not an SQL expression"),
        ("", "is empty"),
        (" \n", "is empty"),
        ("1; select 2", "is not an SQL expression"),
        ("width > 1 order by 1", "is not an SQL expression"),
        ("1) FROM samples; --", "is not an SQL expression"),
        ("true) --", "is not an SQL expression"),
        ("true), (false", "must be one SQL expression"),
        ("true) union select (false", "must be one SQL expression"),
        ("true) as verdict from samples where (true", "must be one SQL expression"),
        ("true) as verdict from '/etc/passwd' where (true", "must be one SQL expression"),
        ("true) where (false", "filter 'true) where (false'"),
        ("true) limit (1", "filter 'true) limit (1'"),
        ("width > 1\0", "filter 'width > 1\\x00'"),
    ],
)
def test_refuses_all_that_is_no_boolean_over_one_row(text: str, says: str):
    with pytest.raises(PlanError) as refused:
        expression.check(text, COLUMNS)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "text", ["random() > 0.5", "NOW() is null", "sum(width) > 1", "age(x) > 1"]
)
def test_for_a_function_that_there_is_no_other_is_proposed(text: str):
    with pytest.raises(PlanError, match=r"always gives the same answer$"):
        expression.check(text, COLUMNS)


def test_a_file_cannot_be_reached_even_past_the_check():
    for query in (
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('/etc/*')",
        "COPY (SELECT 1) TO '/tmp/pixsieve-must-not-exist'",
        "SET enable_external_access = true",
        "INSTALL httpfs",
        "ATTACH '/tmp/pixsieve-must-not-exist'",
    ):
        with pytest.raises(Exception, match=r"(?i)disabled|locked|not exist|Permission|cannot"):
            expression._connection().execute(query)


def test_every_row_has_its_verdict_in_order():
    rows = table(width=[*range(100_000), None])
    found = expression.evaluate("width % 3 = 0", rows).to_pylist()
    assert found == [*(number % 3 == 0 for number in range(100_000)), None]


def test_no_function_of_the_clock_counts_as_stable():
    """An update of DuckDB may add functions: none that sounds like the clock may slip in."""
    suspicious = ("current", "now", "today", "local", "random", "uuid", "pid", "user")
    named = {
        name
        for name, stable in expression._functions().items()
        if stable and name.startswith(suspicious)
    }
    assert named <= {"uuid_extract_timestamp", "uuid_extract_version"}


def test_what_fails_on_the_data_says_how_to_guard_it():
    rows = table(caption=["7", "x"])
    assert expression.check("caption::int > 1", COLUMNS) == ("caption",)
    with pytest.raises(PlanError, match=r"'x'.*guard it, say with TRY_CAST or CASE"):
        expression.evaluate("caption::int > 1", rows)
    assert expression.evaluate("try_cast(caption as int) > 1", rows).to_pylist() == [True, None]


def test_threads_do_not_see_the_rows_of_each_other():
    wrong = []

    def work(number: int) -> None:
        rows = table(width=[number] * 50)
        for _ in range(20):
            if expression.evaluate(f"width = {number}", rows).to_pylist() != [True] * 50:
                wrong.append(number)  # noqa: PERF401

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_half_floats_beside_and_in_an_expression_are_no_hindrance():
    halves = pa.array(np.array([1, 2, 3], np.float16))
    vectors = pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float16(), 2))
    table = pa.table({"width": [1, 2, 3], "half": halves, "vector": vectors})
    assert expression.check("half < 3 and width > 1", table.schema) == ("width", "half")
    assert expression.evaluate("half < 3 and width > 1", table).to_pylist() == [False, True, False]
    assert expression.evaluate("vector[1] > 2", table).to_pylist() == [False, None, True]
