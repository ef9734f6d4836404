"""Features on the card: what the reader of Hugging Face makes of the tars."""

import pytest

from pixsieve.export.contents import Contents
from pixsieve.export.indexes.features import features, of_json

PLAIN = {"a": "int", "b": ["string"], "c": {"x": "float"}, "f": "bool"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("int", {"dtype": "int64"}),
        ("float", {"dtype": "float64"}),
        ("null", None),
        ("mixed", None),
        (["null"], None),
        (["int"], {"sequence": "int64"}),
        ([["int"]], {"sequence": {"sequence": "int64"}}),
        ([{"x": "int"}], {"list": [{"name": "x", "dtype": "int64"}]}),
        ({}, None),
        ({"e": "mixed"}, None),
        (
            {"a": "bool", "m": "mixed", "o": {"n": "null"}, "": "string"},
            {"struct": [{"name": "a", "dtype": "bool"}, {"name": "", "dtype": "string"}]},
        ),
    ],
)
def test_json(kind, expected):
    assert of_json(kind) == expected


def contents(images=("jpg",), members=(), json=None):
    return Contents(
        samples=1, images=dict.fromkeys(images, 1), members=dict.fromkeys(members, 1), json=json
    )


def types(of):
    return {each["name"]: each.get("dtype", "struct") for each in features(of)}


def test_images_text_and_json_come_first():
    found = types(contents(("jpg", "png"), ("cls", "json", "txt", "xml"), PLAIN))
    assert list(found) == ["jpg", "png", "txt", "json", "cls", "xml", "__key__", "__url__"]


def test_members_have_the_types_that_the_reader_gives_them():
    members = ("txt", "cls", "mask.png", "xml", "mp3", "txt.gz", "png.gz", "gz", "jpg_2", "a.b")
    assert types(contents(members=members)) == {
        "jpg": "image",
        "txt": "string",
        "a.b": "binary",
        "cls": "int64",
        "gz": "binary",
        "jpg_2": "binary",
        "mask.png": "image",
        "mp3": "binary",
        "png.gz": "binary",
        "txt.gz": "string",
        "xml": "binary",
        "__key__": "string",
        "__url__": "string",
    }


def test_what_has_no_known_type_is_left_out():
    members = ("npy", "npz", "pth", "meta.json", "json.gz", "json")
    assert list(types(contents(members=members, json="mixed"))) == ["jpg", "__key__", "__url__"]


def test_an_extension_that_is_image_and_member_is_one_column():
    assert list(types(contents(("jpg", "png"), ("png",)))) == ["jpg", "png", "__key__", "__url__"]


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_datasets_reads_them():
    from datasets import Features, Image, List, Value  # noqa: PLC0415

    kind = PLAIN | {"d": [["int"]], "e": [{"x": "int"}], "_type": "string"}
    found = Features._from_yaml_list(features(contents(members=("json",), json=kind)))
    assert found == Features(
        {
            "jpg": Image(),
            "json": {
                "a": Value("int64"),
                "b": List(Value("string")),
                "c": {"x": Value("float64")},
                "f": Value("bool"),
                "d": List(List(Value("int64"))),
                "e": List({"x": Value("int64")}),
                "_type": Value("string"),
            },
            "__key__": Value("string"),
            "__url__": Value("string"),
        }
    )
