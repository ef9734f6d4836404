import dataclasses
import sys
import textwrap
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixsieve import recipe, stages
from pixsieve.errors import PlanError, RecipeError, StorageError, UsageError
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilePartitioningStage,
    FilterStage,
    ImageReaderStage,
    ImageWriterStage,
    ShuffleStage,
)

PHOTOS = """\
name: photos
seed: 7
stages:
  - ImageReaderStage: {path_or_paths: photos/, json_fields: {score: double}}
  - FilterStage: {where: 'least(width, height) >= 256'}
  - ExactDeduplicationStage
  - ShuffleStage: {seed: 3}
  - ImageWriterStage: {output_dir: out/, images_per_tar: 10}
"""


def test_a_recipe_becomes_the_stages_that_it_names():
    pipeline = recipe.loads(PHOTOS)
    assert (pipeline.name, pipeline.seed) == ("photos", 7)
    assert pipeline.stages == (
        ImageReaderStage("photos/", json_fields={"score": "double"}),
        FilterStage("least(width, height) >= 256"),
        ExactDeduplicationStage(),
        ShuffleStage(seed=3),
        ImageWriterStage(output_dir="out/", images_per_tar=10),
    )


def test_a_written_recipe_is_the_text_that_was_read():
    pipeline = recipe.loads(PHOTOS)
    assert recipe.dumps(pipeline) == PHOTOS


def pipeline_of(*stages: stages.Stage, name: str = "x", seed: int = 0) -> Pipeline:
    pipeline = Pipeline(name, seed=seed)
    for stage in stages:
        pipeline.add_stage(stage)
    return pipeline


text = st.text(st.characters(exclude_categories=()), max_size=12)  # surrogates too: paths hold them
readers = st.builds(
    ImageReaderStage,
    text | st.lists(text, max_size=3) | st.none(),
    animated=st.sampled_from(["reject", "first_frame"]),
    caption_field=st.none() | text,
    json_fields=st.dictionaries(
        text.map("field {}".format), st.sampled_from(["string", "int64", "double", "bool"])
    ),
    max_pixels=st.integers(1),
)
writers = st.builds(
    ImageWriterStage,
    output_dir=text.filter(bool),
    image_format=st.sampled_from(["jpeg", "keep", "png", "webp"]),
    prefix=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,9}", fullmatch=True),
    deterministic_name=st.booleans(),
    max_bytes_per_tar=st.none() | st.integers(10_240),
)
anything = st.one_of(
    readers,
    writers,
    st.builds(FilterStage, text),
    st.builds(ShuffleStage, seed=st.none() | st.integers()),
    st.builds(
        FilePartitioningStage,
        file_paths=text | st.lists(text, max_size=3),
        file_extensions=st.none() | st.lists(text, max_size=2),
    ),
)


@settings(max_examples=150, deadline=None)
@given(name=text, seed=st.integers(), listed=st.lists(anything, min_size=1, max_size=4))
def test_every_pipeline_survives_being_written_and_read(name, seed, listed):
    pipeline = pipeline_of(*listed, name=name, seed=seed)
    written = recipe.dumps(pipeline)
    assert written.count("\n") == len(listed) + 3, "one line for each stage"
    assert recipe.loads(written) == pipeline


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("nameseed:stages-[]{}*&!|>?'\"#,\n\t \x00\x85é<=%@`")) | st.text())
def test_any_text_is_a_recipe_or_has_a_line_that_is_wrong(found):
    with pytest.raises(RecipeError, match=r"^recipe\.yaml:\d+: "):
        recipe.loads(found)


def test_a_list_that_is_there_twice_is_written_twice():
    shared = ["a.tar", "b.tar"]
    written = recipe.dumps(pipeline_of(ImageReaderStage(shared), ImageReaderStage(shared)))
    assert written.count("[a.tar, b.tar]") == 2
    assert recipe.loads(written).stages[1] == ImageReaderStage(("a.tar", "b.tar"))


def test_a_path_object_is_written_as_text():
    written = recipe.dumps(pipeline_of(ImageWriterStage(output_dir=Path("some/out"))))
    assert recipe.loads(written).stages == (ImageWriterStage(output_dir="some/out"),)


def test_what_no_recipe_can_hold_is_refused_by_name():
    with pytest.raises(UsageError, match=r"FilterStage\.where is a object; a recipe can hold"):
        recipe.dumps(pipeline_of(FilterStage(object())))


def test_relative_paths_start_at_the_recipe(tmp_path):
    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "r.yaml").write_text(
        textwrap.dedent("""\
            stages:
              - FilePartitioningStage: {file_paths: [a/, /else/b.tar, ../c.tar]}
              - ImageReaderStage: {path_or_paths: 'in/{00..09}.tar'}
              - ImageWriterStage: {output_dir: out/, prefix: out}
        """)
    )
    partitioning, reader, writer = recipe.load(folder / "r.yaml").stages
    assert partitioning.file_paths == (f"{folder}/a/", "/else/b.tar", f"{folder}/../c.tar")
    assert reader.path_or_paths == f"{folder}/in/{{00..09}}.tar"
    assert (writer.output_dir, writer.prefix) == (f"{folder}/out/", "out")


def test_a_recipe_in_the_working_directory_leaves_paths_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(PHOTOS)
    assert recipe.load("r.yaml").stages == recipe.loads(PHOTOS).stages


@pytest.mark.parametrize("place", ["recipes/r.yaml", "r.yaml"])
def test_a_recipe_that_is_written_beside_the_one_that_was_read_is_the_same(
    place, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    text = (
        "stages: [ImageReaderStage: {path_or_paths: [../a, b/]}, ImageWriterStage: {output_dir: o}]"
    )
    Path(place).write_text(text)
    read = recipe.load(place)
    Path(place).with_name("again.yaml").write_text(recipe.dumps(read))
    assert recipe.load(Path(place).with_name("again.yaml")) == read


def test_paths_that_a_recipe_elsewhere_names_mean_the_same_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/r.yaml").write_text("stages: [ImageReaderStage: {path_or_paths: ../a/}]")
    (reader,) = recipe.load("recipes/r.yaml").stages
    assert reader.path_or_paths == f"{tmp_path}/recipes/../a/"


def test_addresses_are_no_relative_paths():
    text = "stages: [ImageReaderStage: {path_or_paths: 's3://bucket/x.tar'}]"
    (reader,) = recipe.loads(text, folder=Path("/somewhere")).stages
    assert reader.path_or_paths == "s3://bucket/x.tar"


WRONG = {
    "": "1: the recipe is empty; expected one of: name, seed, stages",
    "photos/": "1: a recipe is a mapping of keys to values, found the text 'photos/'",
    "name: a\nstage: [FilterStage]": "2: 'stage' is no key of a recipe; did you mean 'stages'?",
    "name: a": "1: the key 'stages' is missing",
    "name: a\nname: b": "2: a recipe: the key 'name' is there twice, first in line 1",
    "stages:": "1: stages: expected a list of stages, found null",
    "stages: []": "1: stages: expected a list of stages, found an empty list",
    "name: 2024\nstages: [x]": "1: name: expected text, found the number 2024",
    "seed: x\nstages: [x]": "1: seed: expected a whole number, found the text 'x'",
    "seed: 2020-13-45\nstages: [x]": "1: '2020-13-45' is no timestamp",
    "stages:\n- FilterStag": "2: there is no stage 'FilterStag'; did you mean 'FilterStage'?; "
    "expected one of: ",
    "stages:\n- ScoreStage": "2: there is no stage 'ScoreStage'",
    "stages:\n- 3": "2: expected the name of a stage, found the number 3",
    "stages:\n-\n  - FilterStage": "3: expected the name of a stage, found a list",
    "stages:\n- FilterStage": "2: FilterStage needs the field 'where' (text), which is missing",
    "stages:\n- FilterStage:\n    wher: x": "3: FilterStage has no field 'wher'; did you mean "
    "'where'?; expected one of: where",
    "stages:\n- FilterStage:\n  where: x": "2: expected one stage with its fields, found a mapping "
    "with the keys: FilterStage, where; indent",
    "stages:\n- FilterStage: {where: least(width, height) > 9}": "2: FilterStage has no field "
    "'height) > 9'; a value with a comma needs quotes; expected one of: where",
    "stages:\n- FilterStage: [x]": "2: FilterStage is a mapping of keys to values, found a list",
    "stages:\n- FilterStage:\n    where: yes": "3: FilterStage.where: expected text, found true",
    "stages:\n- FilterStage:\n    where: a\n    where: b": "4: FilterStage: the key 'where' is "
    "there twice, first in line 3",
    "stages:\n- BrisqueStage: {by: x}": "2: BrisqueStage has no field 'by'; it has no fields",
    "stages:\n- ShuffleStage: {seed: 1.5}": "2: ShuffleStage.seed: expected a whole number or "
    "null, found the number 1.5",
    "stages:\n- ImageReaderStage: {path_or_paths: [a, 1]}": "2: ImageReaderStage.path_or_paths: "
    "expected text or a list of text or null, found a list (the text 'a', the number 1)",
    "stages:\n- ImageReaderStage:\n    json_fields:\n      a: strin": "2: ImageReaderStage: "
    "json_fields: 'a' has the type 'strin'",
    "stages:\n- ImageWriterStage:\n    output_dir: x\n    image_format: jpg": "4: "
    "ImageWriterStage.image_format: expected one of 'avif', 'jpeg', 'keep', 'png', 'webp', "
    "found the text 'jpg'; did you mean 'jpeg'?",
    "stages:\n- ImageWriterStage: {output_dir: x, images_per_tar: 0}": "2: ImageWriterStage: "
    "images_per_tar is 0; expected at least 1",
    "stages:\n- SampleStage: {count: 0}": "2: SampleStage: count is 0; expected 1 or more",
    "stages:\n- no_such_package:X": "2: the stage 'no_such_package:X' cannot be imported: "
    "ModuleNotFoundError: No module named 'no_such_package'; put its folder on PYTHONPATH",
    "stages:\n- json:nothing": "2: the stage 'json:nothing' cannot be imported: "
    "AttributeError: module 'json' has",
    "stages:\n- json:loads": "2: 'json:loads' is no stage: it is a function; expected a class",
    "stages:\n- json:JSONDecoder": "2: 'json:JSONDecoder' is no stage: expected a subclass of",
    "stages:\n- &a FilterStage\n- *a": "2: anchors (&) and aliases (*) are not for recipes",
    "stages:\n- !!python/name:os.system FilterStage": "2: YAML tags such as",
    "stages: [a,": "1: not YAML:",
    "a: b\n---\nc: d": "2: not YAML: but found another document",
    "name: a\nseed: \x00": r"2: the character \x00 may not stand in YAML",
    "stages: " + "[" * 2000: "1: more than 16 lists and mappings in each other",
}


@pytest.mark.parametrize("text", WRONG, ids=range(len(WRONG)))
def test_what_is_wrong_is_told_with_its_line(text):
    with pytest.raises(RecipeError) as raised:
        recipe.loads(text, "my.yaml")
    assert str(raised.value).startswith(f"my.yaml:{WRONG[text]}")
    assert "\n" not in str(raised.value)


READER = "ImageReaderStage: {path_or_paths: photos}"
WRITER = "ImageWriterStage: {output_dir: out}"
MISFITS = {
    (READER, "FilterStage: {where: widht > 2}"): "3: filter 'widht > 2' names the column 'widht'",
    (READER, "FilterStage: {where: width}", "FilterStage: {where: x > 2}"): "3: filter 'width' giv",
    (READER, "FilterStage: {where: true = true}", READER): "4: ImageReaderStage stands in the midd",
    (WRITER, READER): "2: a pipeline starts with an ImageReaderStage",
    ("FilePartitioningStage: {file_paths: in}", READER): "3: FilePartitioningStage and ImageReader",
    ("FilePartitioningStage: {file_paths: in}",): " a pipeline starts with an ImageReaderStage",
    (READER, WRITER, "ExactDeduplicationStage"): "3: ImageWriterStage stands in the middle",
    (
        READER.replace("}", ", json_fields: {sharpness: double}}"),
        "ImageQualityStage",
    ): "3: ImageQualityStage adds the column 'sharpness', which there is already",
}


@pytest.mark.parametrize("listed", MISFITS, ids=range(len(MISFITS)))
def test_a_stage_that_does_not_fit_is_told_with_its_line(listed):
    text = "".join(["stages:\n", *(f"- {each}\n" for each in listed)])
    with pytest.raises(PlanError) as raised:
        recipe.loads(text, "my.yaml").plan()
    told = MISFITS[listed]
    assert str(raised.value).startswith(told.lstrip() if told[0] == " " else f"my.yaml:{told}")


def test_a_stage_of_the_command_line_that_does_not_fit_is_told_by_its_number():
    pipeline = recipe.parse_stages(["a"], ["ImageQualityStage", "FilterStage: {where: widht > 2}"])
    with pytest.raises(PlanError, match=r"^stage 2:1: filter 'widht > 2' names the column"):
        pipeline.plan()


def test_a_file_that_is_no_recipe_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.yaml: there is no such recipe"):
        recipe.load(tmp_path / "gone.yaml")
    with pytest.raises(UsageError, match="is a folder, expected a recipe"):
        recipe.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: a\nseed: é".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"latin\.yaml:2: not UTF-8"):
        recipe.load(tmp_path / "latin.yaml")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot read the recipe"):
        recipe.load(tmp_path / "file" / "r.yaml")


OWN_STAGES = """
from __future__ import annotations
from dataclasses import dataclass, field
from pixsieve.stages import SelectStage

@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark(SelectStage):
    threshold: float = 0.5
    words: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.threshold > 1:
            raise ValueError(f"threshold is {self.threshold}; expected at most 1")

    def decide(self, rows): ...

@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished(SelectStage):
    threshold: float = 0.5
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module with stages of a user's own."""
    (tmp_path / "own_stages.py").write_text(OWN_STAGES)
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("own_stages")
    del sys.modules["own_stages"]


def test_a_stage_of_ones_own_is_spelled_with_its_module(own):
    stage = own.Watermark(threshold=0.25, words=("a", "b"))
    written = recipe.dumps(pipeline_of(stage))
    assert "- own_stages:Watermark: {threshold: 0.25, words: [a, b]}\n" in written
    assert recipe.loads(written).stages == (stage,)


def test_whole_numbers_are_numbers_too(own):
    (stage,) = recipe.loads("stages: [own_stages:Watermark: {threshold: 1}]").stages
    assert stage == own.Watermark(threshold=1.0)


def test_what_a_stage_of_ones_own_refuses_has_the_recipes_line(own):
    del own
    with pytest.raises(RecipeError, match=r"yaml:2: own_stages:Watermark: threshold is 3.0; expec"):
        recipe.loads("stages:\n  - own_stages:Watermark: {threshold: 3}")


def test_a_class_that_lacks_its_method_is_no_stage(own):
    del own
    with pytest.raises(RecipeError, match=r"Unfinished' is no stage: it lacks decide\(\)"):
        recipe.loads("stages: [own_stages:Unfinished]")


@pytest.fixture
def entry_points(monkeypatch):
    """Stands in for installed packages that name stages."""
    named = [
        EntryPoint("Watermark", "own_stages:Watermark", recipe.ENTRY_POINTS),
        EntryPoint("FilterStage", "own_stages:Watermark", recipe.ENTRY_POINTS),
        EntryPoint("Twice", "own_stages:Watermark", recipe.ENTRY_POINTS),
        EntryPoint("Twice", "own_stages:Unfinished", recipe.ENTRY_POINTS),
        EntryPoint("Broken", "no_such_package:Stage", recipe.ENTRY_POINTS),
    ]
    found = EntryPoints(named)
    monkeypatch.setattr("importlib.metadata.entry_points", found.select)


def test_a_stage_that_a_package_names_needs_no_module(own, entry_points):
    del entry_points
    stage = own.Watermark(limit=4)
    written = recipe.dumps(pipeline_of(stage))
    assert "- Watermark: {limit: 4}\n" in written
    assert recipe.loads(written).stages == (stage,)


def test_no_package_can_take_the_name_of_a_built_in_stage(own, entry_points):
    del own, entry_points
    assert recipe.find_stage("FilterStage") is FilterStage


def test_a_name_that_two_packages_give_must_be_spelled_out(own, entry_points):
    del own, entry_points
    with pytest.raises(RecipeError, match=r"which one: own_stages:Unf\w+ \(.* or own_st"):
        recipe.loads("stages: [Twice]")


def test_a_name_that_two_packages_give_is_not_written_down(own, entry_points):
    del entry_points
    assert recipe.stage_name(own.Unfinished) == "own_stages:Unfinished"


def test_a_package_s_stage_with_a_built_in_name_is_told_where_they_are_mixed_up(own, entry_points):
    del own, entry_points
    told = r"no field 'limit'.*; that of the package own_stages is spelled own_stages:Watermark"
    with pytest.raises(RecipeError, match=told):
        recipe.loads("stages: [FilterStage: {limit: 4}]")


def test_a_package_that_cannot_be_imported_hinders_no_other_stage(entry_points):
    del entry_points
    assert recipe.loads("stages: [ExactDeduplicationStage]").stages == (ExactDeduplicationStage(),)
    with pytest.raises(RecipeError, match="the package no_such_package cannot be imported: Module"):
        recipe.loads("stages: [Broken]")
    with pytest.raises(RecipeError, match=r"'Brokn'; did you mean 'Broken'\?"):
        recipe.loads("stages: [Brokn]")


def test_every_built_in_stage_can_stand_in_a_recipe():
    concrete = {
        name
        for name in stages.__all__
        if dataclasses.is_dataclass(getattr(stages, name))
        and issubclass(getattr(stages, name), stages.Stage)
    }
    assert {recipe.stage_name(recipe.find_stage(name)) for name in concrete} == concrete
    assert len(concrete) >= 6
