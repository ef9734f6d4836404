"""The dataset card: programs load by it, people read it, and nothing in it breaks it."""

import re

import pyarrow as pa
import pytest
import yaml

from pixsieve.errors import PlanError
from pixsieve.export.indexes.base import Desk
from pixsieve.export.indexes.card import CardIndex, check, front_matter, hub_splits, size_category
from pixsieve.scorers.guard import NoGuard
from pixsieve.testing import exports, images

HOSTILE = "a: |b\n---\n```\n# x <!-- \u202e `y` {z} & 'q' \"w\" %TAG @at \x1b[2J"


def card_of(dataset, tmp_path):
    found = CardIndex().of_dataset(dataset, Desk(tmp_path, NoGuard()))
    assert set(found) == {"README.md", "samples.jpg"} == set(CardIndex.files)
    for name, data in found.items():
        (dataset.folder / name).write_bytes(data)
    text = found["README.md"].decode()
    # as huggingface_hub finds it
    parts = re.search(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))", text)
    return yaml.safe_load(parts[2]), text[parts.end() :]


def test_the_front_matter_names_tars_features_and_counts(tmp_path):
    matter, _ = card_of(exports.plain(tmp_path / "out"), tmp_path)
    sizes = [path.stat().st_size for path in (tmp_path / "out").glob("*.tar")]
    assert matter == {
        "pretty_name": "test",
        "tags": ["image", "webdataset"],
        "size_categories": ["n<1K"],
        "configs": [
            {
                "config_name": "default",
                "default": True,
                "data_files": [{"split": "train", "path": "images-0123456789ab-*.tar"}],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "features": [
                {"name": "jpg", "dtype": "image"},
                {"name": "txt", "dtype": "string"},
                {
                    "name": "json",
                    "struct": [
                        {"name": "a", "dtype": "int64"},
                        {"name": "b", "dtype": "float64"},
                        {"name": "t", "sequence": "string"},
                    ],
                },
                {"name": "__key__", "dtype": "string"},
                {"name": "__url__", "dtype": "string"},
            ],
            "splits": [{"name": "train", "num_bytes": sum(sizes), "num_examples": 10}],
            "download_size": sum(sizes),
            "dataset_size": sum(sizes),
        },
    }


def test_splits_have_names_that_the_hub_takes(tmp_path):
    matter, body = card_of(exports.mixed(tmp_path / "out"), tmp_path)
    assert matter["configs"][0]["data_files"] == [
        {
            "split": "train",
            "path": ["images-train-a-0123456789ab-*.tar", "images-train-b-c-0123456789ab-*.tar"],
        },
        {"split": "test_x_2", "path": "images-test-x-a-0123456789ab-*.tar"},
        {"split": "test_x", "path": "images-test_x-a-0123456789ab-*.tar"},
    ]
    counts = [(each["name"], each["num_examples"]) for each in matter["dataset_info"]["splits"]]
    assert counts == [("train", 7), ("test_x_2", 3), ("test_x", 2)]
    assert "`test_x_2` (in columns and file names: `test-x`)" in body


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        ([None], ["train"]),
        ([None, "train", "val"], ["train", "val"]),
        (["a-b", "a_b", "a-b-"], ["a_b_2", "a_b", "a_b_"]),
        (["-", "_"], ["__2", "_"]),
        (["all", "all_2"], ["all_3", "all_2"]),
    ],
)
def test_no_two_splits_have_one_name(tmp_path, splits, expected):
    samples = [exports.members(number) for number in range(len(splits))]
    groups = [(split, None) for split in splits]
    dataset = exports.finished_dataset(tmp_path / "out", samples, groups=groups)
    found = hub_splits(dataset)
    assert list(found) == expected
    assert sum(map(len, found.values())) == len(splits)


@pytest.mark.parametrize(
    ("samples", "expected"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**13, "n>1T")],
)
def test_size_category(samples, expected):
    assert size_category(samples) == expected


def test_what_the_writer_says_is_on_the_card(tmp_path):
    said = {
        "license": "cc-by-4.0",
        "language": "en, de",
        "tags": "photos",
        "pretty_name": "Photos: all",
        "description": "Of *mine*.",
        "citation": "@misc{x,\n title={Y}}",
    }
    check(said)
    matter, body = card_of(exports.plain(tmp_path / "out", card=said), tmp_path)
    assert matter["license"] == "cc-by-4.0"
    assert matter["language"] == ["en", "de"]
    assert matter["tags"] == ["photos"]
    assert matter["pretty_name"] == "Photos: all"
    assert body.startswith("\n# Photos: all\n\nOf *mine*.\n")
    assert "The dataset's licence is cc-by-4.0." in body
    assert "@misc{x,\n title={Y}}" in body


def test_what_no_card_has_is_an_error():
    with pytest.raises(PlanError, match=r"card has 'licence'; expected any of .*did you mean"):
        check({"licence": "x"})


def test_the_funnel_the_inputs_and_the_recipe_are_told(tmp_path):
    reasons = [{"stage": "FilterStage", "status": "dropped", "reason": "filter", "count": 12_345}]
    dataset = exports.plain(
        tmp_path / "out",
        reasons=reasons,
        counts={"indexed": 12_355, "kept": 10, "dropped": 12_345, "failed": 0},
        inputs=[{"path": f"in/{n}.tar", "samples": 7, "sha256": "0" * 64} for n in range(30)],
        recipe='name: test\nstages:\n- FilterStage: {where: "a ``` b"}\n',
    )
    _, body = card_of(dataset, tmp_path)
    assert "| `FilterStage` | dropped | `filter` | 12,345 |" in body
    assert "from 12,355 samples" in body
    assert "| `in/24.tar` | 7 |" in body
    assert "in/25.tar" not in body
    assert "… and 5 more" in body
    assert '````yaml\nname: test\nstages:\n- FilterStage: {where: "a ``` b"}\n````' in body


def test_licences_of_images_are_counted(tmp_path):
    _, body = card_of(exports.mixed(tmp_path / "out"), tmp_path)
    assert "by the column `license`:" in body
    assert "| CC-BY \\| 4.0 | 4 |\n" in body
    assert "| CC0 | 4 |\n" in body
    assert "| not known | 4 |\n" in body
    _, body = card_of(exports.plain(tmp_path / "plain"), tmp_path)
    assert "the rows have no column of it" in body


def test_a_column_may_have_the_role_of_a_licence(tmp_path):
    column = pa.field("rights", pa.string(), metadata={"role": "license"})
    samples = [exports.members(number) for number in range(40)]
    rows = [{"rights": f"L{number:02d}"} for number in range(40)]
    dataset = exports.finished_dataset(
        tmp_path / "out", samples, added=pa.schema([column]), rows=rows
    )
    _, body = card_of(dataset, tmp_path)
    assert "| L24 | 1 |\n| 15 others | 15 |" in body


def test_columns_tell_type_and_meaning(tmp_path):
    _, body = card_of(exports.mixed(tmp_path / "out"), tmp_path)
    told = "model; scale: -1 to 1; unit: vector"
    assert f"| `embedding` | `fixed_size_list<float>[3]` | {told} |" in body
    assert '| `we: ird/#\\|"é` | `string` |  |' in body


def test_hostile_text_breaks_neither_yaml_nor_markdown(tmp_path):
    said = dict.fromkeys(("pretty_name", "license", "license_name", "license_link"), HOSTILE)
    said |= {"tags": HOSTILE, "citation": HOSTILE, "language": "no, on"}
    row = {"stage": HOSTILE, "status": "dropped", "reason": HOSTILE, "count": 1}
    dataset = exports.plain(
        tmp_path / "out",
        name=HOSTILE,
        card=said,
        reasons=[row],
        inputs=[{"path": HOSTILE, "samples": 1, "sha256": "0" * 64}],
        recipe=HOSTILE,
    )
    matter, body = card_of(dataset, tmp_path)
    assert matter["pretty_name"] == HOSTILE
    assert matter["language"] == ["no", "on"]
    assert body.count("\n---\n") == 2  # in the code blocks of recipe and citation
    headings = re.findall(r"^## (.*)$", re.sub(r"(?ms)^(````).*?^\1$", "", body), re.MULTILINE)
    assert headings == [
        "Splits", "Loading", "How it was made", "Columns of the rows", "Licences and privacy",
        "Citation",
    ]  # fmt: skip
    assert "\u202e" not in body
    assert "\x1b" not in body
    assert [line for line in body.splitlines() if line.startswith("# ")] == [
        "# a: \\|b --- \\`\\`\\` \\# x \\<!-- \\`y\\` \\{z\\} \\& 'q' \"w\" %TAG @at [2J".replace(
            "[2J", "\\[2J"
        ),
        "# x <!--   `y` {z} & 'q' \"w\" %TAG @at  [2J",
        "# x <!--   `y` {z} & 'q' \"w\" %TAG @at  [2J",
    ]


def test_text_that_no_encoding_takes_does_no_harm(tmp_path):
    dataset = exports.plain(tmp_path / "out", name="a\ud800b", json_type={"\ud800": "int"})
    matter, _ = card_of(dataset, tmp_path)
    assert matter["configs"]


def test_a_card_that_was_changed_is_known(tmp_path):
    index = CardIndex()
    card = index.of_dataset(exports.plain(tmp_path / "out"), Desk(tmp_path, NoGuard()))
    data = card["README.md"]
    assert not index.is_edited(data)
    assert not index.is_edited(card["samples.jpg"])
    assert index.is_edited(data.replace(b"# test", b"# best"))
    assert index.is_edited(data + b"more\n")
    assert index.is_edited(b"# somebody's own\n")


def test_same_bytes_each_time(tmp_path):
    found = [
        CardIndex().of_dataset(exports.mixed(tmp_path / name), Desk(tmp_path, NoGuard()))
        for name in "ab"
    ]
    assert found[0] == found[1]


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets  # noqa: PLC0415

    def load(dataset, **options):
        card_of(dataset, tmp_path)
        exports.index_files(dataset, ["energon", "dali", "wids", "litdata"], tmp_path)
        return datasets.load_dataset(
            str(dataset.folder), cache_dir=str(tmp_path / "cache"), **options
        )

    return load


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_a_plain_load_dataset_reads_every_sample(tmp_path, loaded):
    found = loaded(exports.plain(tmp_path / "out"))
    assert found["train"].num_rows == 10
    assert list(found) == ["train"]
    row = found["train"][3]
    assert row["__key__"] == "key-0003"
    assert row["jpg"].size == (67, 48)
    assert row["txt"] == exports.members(3)["txt"].decode()
    assert row["json"] == {"a": 3, "b": 3.5, "t": ["x", "y"]}


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_reads_samples_that_differ_in_all_they_may(tmp_path, loaded, streaming):
    found = loaded(exports.mixed(tmp_path / "out"), streaming=streaming)
    assert list(found) == ["train", "test_x_2", "test_x"]
    rows = [row for split in found.values() for row in split]
    assert [row["__key__"] for row in rows] == [f"key-{number:04d}" for number in range(12)]
    for number, row in enumerate(rows):
        extension = ["jpg", "png", "webp", "avif", "tif", "gif", "bmp"][number % 7]
        assert row[extension].size == (50 + number, 40)
        assert row["txt"] == (f"caption {number}" if number % 3 else None)
        if number % 2:
            assert row["json"]["a"] == (number if number % 4 == 1 else number + 0.5)
            assert row["json"]["o"] == {"q": [{"z": 1}], "": 1}
            assert row["json"]["_type"] == "x"
            assert "m" not in row["json"]
    assert rows[4]["mask.png"].size == (97, 61)
    assert (rows[7]["cls"], rows[7]["xml"], rows[7]["txt.gz"]) == (3, b"<a/>", "hello")
    assert rows[10]["jpg_2"] == b"x"


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("split", "name"), [("all", "all_2"), ("test", "test"), ("a", "a"), ("0", "0"), ("-", "_")]
)
def test_load_dataset_takes_any_name_of_a_split(tmp_path, loaded, split, name):
    samples = [{"png": images.photo(number, format="PNG")} for number in range(3)]
    groups = [(split, None)] * 2 + [("val-1", None)]
    dataset = exports.finished_dataset(tmp_path / "out", samples, groups=groups, per_shard=1)
    found = loaded(dataset)
    assert {each: part.num_rows for each, part in found.items()} == {name: 2, "val_1": 1}


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_load_dataset_reads_the_rows(tmp_path):
    import datasets  # noqa: PLC0415

    columns = pa.schema([field for field in exports.ODD if field.name != "pdq"])
    samples = [exports.members(number) for number in range(12)]
    values = [{"embedding": [0.5, 1, 2], "tags": ["a"] * number} for number in range(12)]
    dataset = exports.finished_dataset(tmp_path / "out", samples, added=columns, rows=values)
    card_of(dataset, tmp_path)
    rows = datasets.load_dataset(
        "parquet",
        data_files=str(dataset.folder / "*.parquet"),
        cache_dir=str(tmp_path / "cache"),
        split="train",
    )
    assert sorted(rows["key"]) == [f"key-{number:04d}" for number in range(12)]
    assert rows[3]["embedding"] == [0.5, 1, 2]


@pytest.mark.loaders
@pytest.mark.filterwarnings("ignore")
def test_the_hub_library_reads_the_card(tmp_path):
    from huggingface_hub import DatasetCard  # noqa: PLC0415

    dataset = exports.mixed(tmp_path / "out", card={"license": "mit", "language": "en"})
    card_of(dataset, tmp_path)
    found = DatasetCard.load(dataset.folder / "README.md")
    assert found.data.license == "mit"
    assert found.data.pretty_name == dataset.name
    assert found.data.size_categories == ["n<1K"]
    assert found.text.strip().startswith("# ")


def test_the_front_matter_is_plain_data(tmp_path):
    matter = front_matter(exports.mixed(tmp_path / "out"))
    assert yaml.safe_load(yaml.safe_dump(matter)) == matter
