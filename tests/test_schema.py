"""Contracts that others build on: column names and types, codes, and errors."""

from __future__ import annotations

import pickle

import pyarrow as pa
import pytest

from pixsieve import errors, schema
from pixsieve.errors import InterruptedRunError, PixsieveError, StorageError, nearest

TABLES = {
    name: getattr(schema, name)
    for name in ("INDEX", "INSPECTION", "SAMPLE", "SELECTION", "SIDECAR", "DROPPED")
}


@pytest.mark.parametrize("name", TABLES)
def test_no_table_has_a_column_twice_or_without_a_type(name: str):
    table = TABLES[name]
    lower = [column.lower() for column in table.names]
    assert len(set(lower)) == len(lower)
    assert not any(pa.types.is_null(kind) for kind in table.types)


def test_columns_of_one_name_have_one_type_in_all_tables():
    types: dict[str, set[str]] = {}
    for table in TABLES.values():
        for field in table:
            words = pa.types.is_dictionary(field.type)
            kind = field.type.value_type if words else field.type
            types.setdefault(field.name, set()).add(str(kind))
    assert {name: found for name, found in types.items() if len(found) > 1} == {}


def test_the_sidecar_keeps_the_columns_that_it_promised():
    assert set(schema.SIDECAR.names) >= {
        "image_id", "tar_file", "member_name", "key", "member_offset", "member_size", "sha256",
        "width", "height", "format", "caption", "original_path", "original_key", "original_offset",
        "exif_orientation", "encoding", "split",
    }  # fmt: skip
    nullable = {field.name for field in schema.SIDECAR if field.nullable}
    assert nullable == {"caption", "class_name", "split", "bucket", "metadata_problem"}


def test_all_own_columns_are_reserved():
    assert set(schema.SIDECAR.names) | set(schema.SAMPLE.names) <= schema.RESERVED


def test_codes_are_stable_words():
    codes = [*schema.Problem, *schema.Status]
    assert len(set(codes)) == len(codes)
    for code in codes:
        assert code.isidentifier()
        assert code == code.lower() == str(code)


def sent(error: PixsieveError) -> PixsieveError:
    """Return the error as another process gets it."""
    return pickle.loads(pickle.dumps(error))  # noqa: S301 - made in this line


def every_error() -> list[type[PixsieveError]]:
    found, new = [], [PixsieveError]
    while new:
        found += new
        new = [
            sub
            for kind in new
            for sub in kind.__subclasses__()
            if sub.__module__ == errors.__name__
        ]
    return found


def test_the_tree_of_errors_is_as_it_is_drawn():
    for kind in every_error():
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__doc__
    families = {kind.__name__: kind.exit_code for kind in every_error()}
    assert families["UsageError"] == families["PlanError"] == 2
    assert families["SourceError"] == families["SourceChangedError"] == 3
    assert (families["StorageError"], families["RunError"], families["VerifyError"]) == (4, 5, 6)
    assert families["InterruptedRunError"] == 130


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        ("UsageError", ValueError), ("MissingExtraError", ImportError),
        ("SourceNotFoundError", FileNotFoundError), ("StorageError", OSError),
        ("OutputConflictError", FileExistsError),
    ],
)  # fmt: skip
def test_errors_are_the_builtins_that_callers_expect(kind: str, builtin: type[Exception]):
    with pytest.raises(builtin, match="what is wrong"):
        raise getattr(errors, kind)("what is wrong")


@pytest.mark.parametrize("kind", every_error())
def test_errors_come_home_from_another_process_as_they_were(kind: type[PixsieveError]):
    error = kind("what is wrong with a.tar")
    found = sent(error)
    assert (type(found), str(found), found.exit_code) == (kind, str(error), kind.exit_code)
    assert str(found) == "what is wrong with a.tar"


def test_what_errors_carry_comes_home_too():
    interrupted = sent(InterruptedRunError("stopped", 143))
    assert (str(interrupted), interrupted.exit_code) == ("stopped", 143)


def test_the_number_of_a_storage_error_comes_home_so_that_it_may_be_tried_again():
    full = StorageError("cannot read a.tar: Input/output error")
    full.errno = 5
    found = sent(full)
    assert (str(found), found.errno) == (str(full), 5)


def test_the_nearest_name_is_offered_only_if_it_is_near():
    names = ["width", "height", "caption"]
    assert nearest("widht", names) == "; did you mean 'width'?"
    assert nearest("xyz", names) == nearest("", names) == nearest("width", []) == ""
