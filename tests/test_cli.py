import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import typing
from pathlib import Path

import click
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pixsieve import cli, errors, recipe
from pixsieve.cli import main
from pixsieve.engine import output
from pixsieve.engine.claim import claim
from pixsieve.engine.ledger import Workspace
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    ImageReaderStage,
    ImageWriterStage,
    PerceptualDeduplicationStage,
    PerceptualHashStage,
    ShuffleStage,
    SplitStage,
)

COMMANDS = (
    "export", "run", "score", "select", "query", "describe", "verify", "why", "clean", "bench",
    "repair",
)  # fmt: skip
GUIDE = Path(__file__).parents[1] / "docs" / "cli.md"


def jpeg(seed: int, side: int = 64) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG")
    return sink.getvalue()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Five photographs, a copy and one that is too small, in the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("photos")
    folder.mkdir()
    for number in range(5):
        (folder / f"p{number}.jpg").write_bytes(jpeg(number))
    shutil.copy(folder / "p1.jpg", folder / "copy.jpg")
    (folder / "small.jpg").write_bytes(jpeg(9, side=16))
    return folder


RECIPE = """\
stages:
  - ImageReaderStage: {path_or_paths: photos}
  - FilterStage: {where: width >= 32}
  - ExactDeduplicationStage
  - ImageWriterStage: {output_dir: out, images_per_tar: 2}
"""


@pytest.fixture
def made(photos):
    """A finished dataset of the photographs, in the folder ``out``."""
    del photos
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["run", "recipe.yaml", "--executor", "inline", "--quiet"]) == 0
    return Path("out")


def dataset(folder: Path) -> dict[str, bytes]:
    """Return the files of a dataset: all but the working state."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# -- the commands -----------------------------------------------------------------------------


def test_export_makes_a_dataset_and_prints_the_funnel(photos, capsys):
    del photos
    arguments = [
        "--where",
        "width >= 32",
        "--deduplicate",
        "--images-per-tar",
        "2",
        "--workers",
        "1",
    ]
    assert main(["export", "photos", "out", *arguments]) == 0
    said = capsys.readouterr()
    assert [line.split()[:2] for line in said.out.splitlines()[:4]] == [
        ["indexed", "7"],
        ["dropped", "FilterStage"],
        ["dropped", "ExactDeduplicationStage"],
        ["kept", "5"],
    ]
    assert "3 shards" in said.out
    assert "select: 5 kept, 2 not kept" in said.err
    assert len(list(Path("out").glob("images-*.tar"))) == 3


def test_export_has_an_option_for_every_part_of_the_pipeline(photos):
    tar = Path("in.tar")
    with tarfile.open(tar, "w") as archive:
        archive.add(photos / "p0.jpg", "p0.jpg")
    arguments = [
        *("--where", "width > 1", "--where", "height > 1", "--deduplicate", "--shuffle"),
        *("--near-duplicates", "--split", "train=0.75", "--split", "val=.25"),
        *("--seed", "5", "--decode-check", "header", "--animated", "first_frame"),
        *("--caption-field", "title", "--json-field", "a:b:double", "--json-field", "n:int64"),
        *("--max-bytes-per-tar", "20kB", "--image-format", "webp", "--quality", "80"),
        *("--member-names", "sequential", "--prefix", "cats", "--random-name", "--quiet"),
        *("--key-split", "last", "--image-member", "jpg"),
        *("--max-pixels", "1000000", "--max-image-bytes", "1MB", "--workers", "1"),
    ]
    assert main(["export", "photos", "in.tar", "out", *arguments]) == 0
    found = recipe.loads(Path("out/recipe.yaml").read_text())
    assert found.seed == 5
    reader, *selectors, writer = found.stages
    assert reader == ImageReaderStage(
        reader.path_or_paths,
        decode_check="header",
        animated="first_frame",
        caption_field="title",
        json_fields={"a:b": "double", "n": "int64"},
        key_split="last",
        image_member="jpg",
        max_pixels=1_000_000,
        max_image_bytes=1_000_000,
    )
    assert len(reader.path_or_paths) == 2
    assert selectors == [
        FilterStage("width > 1"),
        FilterStage("height > 1"),
        PerceptualHashStage(pdq=True),
        ExactDeduplicationStage(),
        PerceptualDeduplicationStage(),
        SplitStage({"train": 0.75, "val": 0.25}),
        ShuffleStage(),
    ]
    assert writer == ImageWriterStage(
        output_dir=writer.output_dir,
        max_bytes_per_tar=20_000,
        image_format="webp",
        member_names="sequential",
        prefix="cats",
        deterministic_name=False,
        quality=80,
    )


def test_an_export_is_the_recipe_that_it_writes_down(photos):
    del photos
    options = ["--where", "width >= 32", "--deduplicate", "--images-per-tar", "2", "--quiet"]
    assert main(["export", "photos", "out", *options, "--workers", "1"]) == 0
    Path("recipe.yaml").write_text(RECIPE.replace("output_dir: out", "output_dir: again"))
    assert main(["run", "recipe.yaml", "--executor", "inline", "--quiet"]) == 0
    names = sorted(path.name for path in Path("out").glob("images-*"))
    assert names == sorted(path.name for path in Path("again").glob("images-*"))
    for name in [*names, "dropped/dropped.parquet"]:
        assert Path("out", name).read_bytes() == Path("again", name).read_bytes()


def test_the_recipe_of_a_dataset_runs_again_on_what_one_names(made, capsys):
    kept = ["run", str(made / "recipe.yaml"), "--workers", "1", "--quiet"]
    assert main([*kept, "--input", "photos", "--output", "again"]) == 0
    assert dataset(Path("again")) == dataset(made)
    Path("measure.yaml").write_text("stages: [ImageReaderStage, ImageQualityStage]")
    asked = ["run", "measure.yaml", "--input", "photos", "--workspace", "ws"]
    assert main([*asked, "--output", "no"]) == 2
    assert "--output has no effect" in capsys.readouterr().err
    assert main([*asked, "--executor", "inline", "--quiet"]) == 0


def test_a_second_run_does_nothing_and_says_so(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.iterdir() if path.is_file()}
    assert main(["run", "recipe.yaml", "--executor", "inline"]) == 0
    assert capsys.readouterr().out.startswith("nothing to do:")
    assert {path: path.stat().st_mtime_ns for path in made.iterdir() if path.is_file()} == before


def test_verbose_tells_of_every_shard_and_changes_no_byte(made, capsys):
    before = dataset(made)
    shutil.rmtree(made)
    assert main(["run", "recipe.yaml", "--executor", "inline", "--verbose"]) == 0
    said = capsys.readouterr().err
    for tar in made.glob("*.tar"):
        assert f"{tar.name}: " in said
    assert dataset(made) == before


def test_json_is_one_object_on_stdout_and_lines_on_stderr(photos, capsys):
    del photos
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["run", "recipe.yaml", "--executor", "inline", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["counts"] == {"indexed": 7, "kept": 5, "dropped": 2, "failed": 0}
    assert found["output_dir"] == "out"
    events = [json.loads(line) for line in said.err.splitlines()]
    assert {"start", "finish"} <= {event["event"] for event in events}


def test_quiet_says_nothing(photos, capsys):
    del photos
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["run", "recipe.yaml", "--executor", "inline", "--quiet"]) == 0
    assert main(["verify", "out", "--quiet", "--workers", "1"]) == 0
    assert capsys.readouterr() == ("", "")


def test_describe_prints_the_plan_and_touches_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["describe", "recipe.yaml"]) == 0
    said = capsys.readouterr().out
    assert "FilterStage(where='width >= 32')" in said
    assert len(said.splitlines()) > 5
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_verify_prints_its_report(made, capsys):
    arguments = ["--sample", "50%", "--no-decode", "--no-load", "--workers", "1"]
    assert main(["verify", str(made), *arguments]) == 0
    said = capsys.readouterr()
    assert "out: sound (pixsieve dataset" in said.out
    assert "not checked: whether images decode" in said.out
    assert "verify: 2 shards, " in said.err
    assert main(["verify", str(made), "--json", "--workers", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


def test_why_answers_in_text_and_json(made, capsys):
    assert main(["why", str(made), "small.jpg"]) == 0
    assert "dropped by FilterStage: filter" in capsys.readouterr().out
    assert main(["why", str(made), "p1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["more"] is False
    assert found["answers"][0]["reason"] == "exact_duplicate"
    assert found["answers"][0]["twin"]["original_key"] == "copy"


def test_why_says_when_there_are_more_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for number in range(25):
        Path(f"photos/{number:02}").mkdir(parents=True)
        Path(f"photos/{number:02}/cat.jpg").write_bytes(jpeg(number))
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["run", "recipe.yaml", "--executor", "inline", "--quiet"]) == 0
    assert main(["why", "out", "cat.jpg"]) == 0
    said = capsys.readouterr().out
    assert said.count(": kept in ") == 20
    assert "These are the first 20" in said


def test_clean_removes_the_working_state_only(made, capsys):
    before = dataset(made)
    assert (made / ".pixsieve").is_dir()
    assert main(["clean", str(made)]) == 0
    assert "removed" in capsys.readouterr().out
    assert dataset(made) == before
    assert not (made / ".pixsieve").exists()
    assert main(["clean", str(made)]) == 0
    assert capsys.readouterr().out == "there is nothing to remove\n"


def test_clean_empties_a_workspace_of_ones_own(photos):
    del photos
    Path("space/tables").mkdir(parents=True)
    Path("space/tables/mine.txt").touch()
    Path("recipe.yaml").write_text(RECIPE)
    options = ["--executor", "inline", "--quiet", "--workspace", "space"]
    assert main(["run", "recipe.yaml", *options]) == 0
    assert main(["clean", "out", "--workspace", "space"]) == 0
    assert [str(path) for path in Path("space").rglob("*.*")] == ["space/tables/mine.txt"]


def test_clean_leaves_a_workspace_alone_that_a_run_uses(photos, capsys):
    del photos
    Path("recipe.yaml").write_text(RECIPE)
    options = ["--executor", "inline", "--quiet", "--workspace", "space"]
    assert main(["run", "recipe.yaml", *options]) == 0
    before = sorted(Path("space").rglob("*"))
    state = Workspace(Path("space/.pixsieve").resolve())
    with output.held(Path("other/.pixsieve").resolve(), state):
        assert main(["clean", "out", "--workspace", "space"]) == 5
        assert "is being worked on by process" in capsys.readouterr().err
    assert sorted(Path("space").rglob("*")) == before


def test_a_workspace_may_lie_inside_the_source(photos, capsys):
    arguments = ["export", str(photos), "out", "--workspace", str(photos), "--workers", "1"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main(arguments) == 0
    assert capsys.readouterr().out.startswith("nothing to do:")


def test_the_name_that_files_share_may_end_at_the_first_dot(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/cat.jpg").write_bytes(jpeg(1))
    Path("in/cat.mask.jpg").write_bytes(jpeg(2))
    assert main(["export", "in", "out", "--quiet", "--key-split", "first"]) == 0
    (sidecar,) = Path("out").glob("images-*.parquet")
    (members,) = pq.read_table(sidecar)["members"].to_pylist()
    assert [name.partition(".")[2] for name in members] == ["jpg", "mask.jpg"]


# -- errors and exit codes --------------------------------------------------------------------

TROUBLE = """
import os, signal, time
from dataclasses import dataclass
from pathlib import Path
import pyarrow as pa
from pixsieve.stages import ScoreStage, SelectStage
from pixsieve.select.base import Verdicts

@dataclass(frozen=True)
class TouchSource(SelectStage):
    def decide(self, rows):
        Path("photos/p0.jpg").write_bytes(b"other")
        return Verdicts()

@dataclass(frozen=True)
class StopRun(SelectStage):
    def decide(self, rows):
        os.kill(os.getpid(), signal.SIGTERM)
        return Verdicts()

@dataclass(frozen=True)
class LoseWorker(ScoreStage):
    def adds(self):
        return pa.schema([("score", pa.float64())])
    def load(self):
        os._exit(3)

@dataclass(frozen=True)
class Bug(SelectStage):
    def decide(self, rows):
        return 1 / 0
"""


@pytest.fixture
def trouble(photos, monkeypatch):
    """Returns a recipe with a stage that makes trouble while a run is under way."""
    folder = photos.resolve().parent / "modules"
    folder.mkdir()
    (folder / "trouble.py").write_text(TROUBLE)
    monkeypatch.syspath_prepend(folder)

    def with_stage(name: str) -> str:
        Path("recipe.yaml").write_text(RECIPE.replace("ExactDeduplicationStage", f"trouble:{name}"))
        return "recipe.yaml"

    yield with_stage
    sys.modules.pop("trouble", None)


def raising(monkeypatch, error: Exception) -> list[str]:
    """Have reading a recipe raise an error that nothing else can provoke yet."""

    def load(path):
        del path
        raise error

    monkeypatch.setattr(recipe, "load", load)
    return ["describe", "recipe.yaml"]


def anything_at_all(*, monkeypatch, **_):
    return raising(monkeypatch, errors.PixsieveError("anything"))


def options_that_exclude_each_other(**_):
    sizes = ("--images-per-tar", "3", "--max-bytes-per-tar", "1GB")
    return ["export", "photos", "out", *sizes]


def a_stage_that_there_is_not(**_):
    Path("recipe.yaml").write_text("stages: [FilterStag]")
    return ["run", "recipe.yaml"]


def a_column_that_there_is_not(**_):
    return ["export", "photos", "out", "--where", "widht > 3"]


def a_package_that_is_missing(*, monkeypatch, **_):
    return raising(monkeypatch, errors.MissingExtraError("pip install 'pixsieve[models]'"))


def a_folder_without_tars(**_):
    return ["verify", "photos"]


def a_source_that_there_is_not(**_):
    return ["export", "phots", "out"]


def a_source_that_changes(*, trouble, **_):
    return ["run", trouble("TouchSource"), "--executor", "inline"]


def an_output_below_a_file(**_):
    Path("file").touch()
    return ["export", "photos", "file/out"]


def a_filter_that_leaves_nothing(**_):
    return ["export", "photos", "out", "--where", "false", "--workers", "1"]


def a_worker_that_ends(*, trouble, **_):
    return ["run", trouble("LoseWorker"), "--workers", "1"]


def too_many_broken_images(*, photos, **_):
    (photos / "p0.jpg").write_bytes(jpeg(0)[:300])
    return ["export", "photos", "out", "--max-failed", "5%", "--workers", "1"]


def an_output_with_tars_of_others(**_):
    Path("out").mkdir()
    with tarfile.open("out/somebody-elses.tar", "w") as tar:
        tar.add("photos")
    return ["export", "photos", "out", "--workers", "1"]


def an_output_that_is_taken(*, stack, **_):
    Path("out/.pixsieve").mkdir(parents=True)
    stack.enter_context(claim(Path("out/.pixsieve")))
    return ["export", "photos", "out", "--workers", "1"]


def a_signal(*, trouble, **_):
    return ["run", trouble("StopRun"), "--executor", "inline"]


def a_flipped_bit(**_):
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["run", "recipe.yaml", "--executor", "inline", "--quiet"]) == 0
    tar = next(Path("out").glob("*.tar"))
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1
    tar.write_bytes(data)
    return ["verify", "out", "--quiet", "--workers", "1"]


PROVOKED = {
    errors.PixsieveError: (1, anything_at_all),
    errors.UsageError: (2, options_that_exclude_each_other),
    errors.RecipeError: (2, a_stage_that_there_is_not),
    errors.PlanError: (2, a_column_that_there_is_not),
    errors.MissingExtraError: (2, a_package_that_is_missing),
    errors.SourceError: (3, a_folder_without_tars),
    errors.SourceNotFoundError: (3, a_source_that_there_is_not),
    errors.SourceChangedError: (3, a_source_that_changes),
    errors.StorageError: (4, an_output_below_a_file),
    errors.RunError: (5, a_filter_that_leaves_nothing),
    errors.WorkerLostError: (5, a_worker_that_ends),
    errors.FailureBudgetError: (5, too_many_broken_images),
    errors.OutputConflictError: (5, an_output_with_tars_of_others),
    errors.BusyError: (5, an_output_that_is_taken),
    errors.InterruptedRunError: (143, a_signal),  # 128 and the number of SIGTERM
    errors.VerifyError: (6, a_flipped_bit),
}


def test_the_list_of_errors_is_the_whole_tree():
    def tree(kind):
        return {kind}.union(*map(tree, kind.__subclasses__()))

    assert set(PROVOKED) == tree(errors.PixsieveError)


@pytest.mark.parametrize("kind", PROVOKED, ids=lambda kind: kind.__name__)
def test_every_error_ends_with_its_code_and_one_line(kind, photos, trouble, monkeypatch, capsys):
    raised = []

    def complain(message, code, original=cli._complain, **options):
        raised.append(sys.exc_info()[0])
        return original(message, code, **options)

    monkeypatch.setattr(cli, "_complain", complain)
    expected, provoke = PROVOKED[kind]
    with contextlib.ExitStack() as stack:
        arguments = provoke(photos=photos, trouble=trouble, monkeypatch=monkeypatch, stack=stack)
        capsys.readouterr()
        code = main(arguments)
    said = capsys.readouterr()
    assert raised == [kind], said.err
    assert code == expected
    assert said.err.splitlines()[-1].startswith("pixsieve: ")
    assert "Traceback" not in said.err
    assert said.out == ""


@pytest.mark.parametrize("executor", [["--executor", "inline"], ["--workers", "1"]])
def test_a_stage_of_ones_own_that_fails_is_told_with_its_line(executor, trouble, capsys):
    assert main(["run", trouble("Bug"), *executor, "--quiet"]) == 5
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pixsieve: Bug failed: ZeroDivisionError: division by zero (")
    at = TROUBLE.splitlines().index("        return 1 / 0") + 1
    assert line.endswith(f"trouble.py:{at}, in decide)")


def test_a_bug_shows_its_traceback(photos, monkeypatch, capsys):
    del photos
    monkeypatch.setattr(ExactDeduplicationStage, "decide", lambda *_: 1 / 0)
    Path("recipe.yaml").write_text(RECIPE)
    assert main(["run", "recipe.yaml", "--executor", "inline", "--quiet"]) == 1
    said = capsys.readouterr().err
    assert "ZeroDivisionError" in said
    assert said.splitlines()[-1].startswith("pixsieve: this is an error in pixsieve")


@pytest.mark.parametrize("command", ["describe", "run"])
def test_what_does_not_fit_in_a_recipe_has_its_line(command, photos, capsys):
    del photos
    Path("recipe.yaml").write_text(RECIPE.replace("width >=", "widht >="))
    assert main([command, "recipe.yaml"]) == 2
    assert capsys.readouterr().err.startswith("pixsieve: recipe.yaml:3: filter 'widht >= 32' names")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["export", "photos", "out", "--where", "false", "--workers", "1"], 5, "nothing is left"),
        (["export", "photos", "out", "--where", "'\udcff' = caption"], 2, "is not UTF-8"),
        (["export", "photos", "out", "--quality", "0"], 2, "0 is not in the range"),
        (["run", "gone.yaml"], 2, "gone.yaml: there is no such recipe"),
        (["verify", "photos"], 3, "photos"),
        (["why", "photos", "x"], 3, "photos has no manifest.json"),
    ],
)
def test_with_json_an_error_is_the_last_of_the_json_lines(arguments, code, says, photos, capsys):
    del photos
    assert main([*arguments, "--json"]) == code
    *events, last = map(json.loads, capsys.readouterr().err.splitlines())
    assert (last["event"], last["exit_code"]) == ("error", code)
    assert says in last["message"]
    assert "error" not in {event["event"] for event in events}


def test_with_json_a_bug_is_one_line_too(monkeypatch, capsys):
    monkeypatch.setattr("pixsieve.why.why", raising)
    assert main(["why", "out", "x", "--json"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)["message"]
    assert "Traceback" in told
    assert "this is an error in pixsieve" in told


def test_control_c_before_a_run_has_its_own_code(monkeypatch, capsys):
    assert main(raising(monkeypatch, KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "pixsieve: stopped"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Usage: pixsieve"),
        (["exprt"], "No such command 'exprt'"),
        (["export", "photos"], "Missing argument"),
        (["export", "photos", "out", "--image-format", "gif"], "'gif' is not one of"),
        (["export", "photos", "out", "--workers", "0"], "0 is not in the range"),
        (["export", "photos", "out", "--max-bytes-per-tar", "1XB"], "'1XB' is no size; expected"),
        (["export", "photos", "out", "--json-field", "score"], "'score' has no type; expected"),
        (
            ["export", "photos", "out", "--json-field", "a:double", "--json-field", "a:string"],
            "--json-field names a field twice (a:double, a:string); give each field one type",
        ),
        (["score", "photos"], "Missing option '--workspace'"),
        (["export", "photos", "out", "--seed", "9" * 30], "is no seed; expected a number from 0"),
        (["export", "photos", "out", "--max-failed", "11"], "'11' is no share; expected"),
        (["verify", "out", "--sample", "nan"], "'nan' is no share; expected"),
        (["verify", "out", "--sample", "0"], "sample is 0.0, expected a share above 0"),
        (["clean", "gone"], "gone: there is no such folder"),
        (["run", "r.yaml", "--executor", "inline", "--workers", "2"], "--workers has no effect"),
    ],
)
def test_what_is_wrong_with_arguments_is_told(arguments, said, capsys):
    assert main(arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "photos", "oo\udcff"],
        ["export", "photos", "out", "--where", "caption = '\udcff'"],
        ["export", "photos", "out", "--workspace", "ws\udcff"],
        ["why", "out", "\udcff"],
    ],
)
def test_arguments_that_are_not_utf8_are_refused(arguments, photos, capsys):
    del photos
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pixsieve: the argument ")
    assert line.endswith(r"is not UTF-8; expected names and text in UTF-8")
    assert [path.name for path in Path().iterdir()] == ["photos"]


def test_the_shells_own_bytes_are_refused_likewise(tmp_path):
    command = [*(os.fsencode(sys.executable), b"-m", b"pixsieve"), *(b"describe", b"r\xff.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert done.stderr.startswith(rb"pixsieve: the argument 'r\udcff.yaml' is not UTF-8")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500", 500),
        ("500B", 500),
        ("2kb", 2000),
        ("1 MB", 10**6),
        ("1.5GiB", 3 * 2**29),
        ("1TB", 10**12),
    ],
)
def test_sizes_have_units(text, size):
    assert cli._Size().convert(text, None, None) == size


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.25", 0.25), ("100%", 1), ("0", 0)])
def test_shares_are_percentages_or_fractions(text, share):
    assert cli._Share().convert(text, None, None) == share


# -- what the terminal gets -------------------------------------------------------------------


def test_control_characters_never_reach_the_terminal(photos, capsys):
    (photos / "evil\x1b[31m\n.jpg").write_bytes(jpeg(3)[:300])
    Path("recipe.yaml").write_text(RECIPE)
    for arguments in (
        ["run", "recipe.yaml", "--executor", "inline"],  # the failure is quoted in the message
        ["run", "recipe.yaml", "--executor", "inline", "--max-failed", "50%"],
        ["why", "out", "evil\x1b[31m\n.jpg"],
        ["why", "out", "bad\x1b[31m"],
        ["export", "gone\x1b[31m", "out2"],
        ["run", "gone\x1b[31m.yaml"],
    ):
        main(arguments)
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err, arguments


def test_a_terminal_with_few_characters_gets_escapes(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "pixsieve", "describe", "recipe.yaml"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert rb"\u251c\u2500 index" in done.stdout


def test_output_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    command = [sys.executable, "-m", "pixsieve", "describe", "recipe.yaml"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 4
    assert done.stderr == ("pixsieve: cannot write to standard output: No space left on device\n")


def test_a_reader_that_leaves_early_makes_no_noise(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "pixsieve", "describe", "recipe.yaml"]
    done = subprocess.run(
        command, cwd=tmp_path, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(theirs)
    assert done.returncode != 0
    assert done.stderr == ""


# -- help -------------------------------------------------------------------------------------


def options(command: str) -> list[click.Option]:
    params = cli.pixsieve.commands[command].params
    return [param for param in params if isinstance(param, click.Option)]


def test_commands_are_listed_in_the_order_in_which_one_meets_them(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    places = [said.index(f"\n  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert tuple(cli.pixsieve.commands) == (*COMMANDS, "models")  # a group of its own


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option_under_a_heading(command, capsys):
    assert main([command, "--help"]) == 0
    said = capsys.readouterr().out
    for option in options(command):
        assert option.help, option.name
        assert f"  {option.opts[0]}" in said
        assert f"\n{option.heading}:\n" in said


def test_help_has_examples_and_defaults(capsys):
    assert main(["export", "-h"]) == 0
    said = capsys.readouterr().out
    assert "pixsieve export photos/ out/" in said
    for default in ("default: jpeg", "default: 95", "one per processor", "1000", "default: 10%"):
        assert default in said


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from pixsieve.cli import main; main(['export', '--help']);"
        "print(sorted({'numpy', 'pyarrow', 'duckdb', 'PIL', 'rich', 'msgspec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("pixsieve 0.")


@pytest.mark.parametrize(
    ("option", "stage", "field"),
    [
        ("--decode-check", ImageReaderStage, "decode_check"),
        ("--animated", ImageReaderStage, "animated"),
        ("--image-format", ImageWriterStage, "image_format"),
        ("--member-names", ImageWriterStage, "member_names"),
    ],
)
def test_choices_and_defaults_are_those_of_the_stage(option, stage, field):
    (found,) = [each for each in options("export") if option in each.opts]
    assert tuple(found.type.choices) == typing.get_args(typing.get_type_hints(stage)[field])
    assert found.default == stage.__dataclass_fields__[field].default


@pytest.mark.parametrize("command", COMMANDS)
def test_the_guide_knows_every_option(command):
    guide = GUIDE.read_text(encoding="utf-8")
    section = guide.partition(f"\n## pixsieve {command}\n")[2].partition("\n## ")[0]
    for option in options(command):
        assert f"`{option.opts[0]}" in section, f"{option.opts[0]} is not in {GUIDE.name}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--split", "train"], "'train' is no split; expected one such as train=0.9"),
        (["--split", "train=0"], "'train=0' is no split"),
        (["--split", "train=half"], "'train=half' is no split"),
        (["--split", "a=0.5", "--split", "a=0.5"], "--split names a split twice (a=0.5, a=0.5)"),
        (["--split", "a=0.5"], "the shares come to 0.5; expected 1"),
        (["--shards-multiple-of", "2", "--max-bytes-per-tar", "1MB"], "shards_multiple_of"),
    ],
)
def test_what_is_wrong_with_splits_is_told(photos, capsys, options, says):
    del photos
    assert main(["export", "photos", "out", *options]) == 2
    assert says in capsys.readouterr().err
    assert not Path("out").exists()


def test_each_split_has_tars_of_its_own_in_the_number_asked_for(photos):
    del photos
    options = ["--split", "a=0.5", "--split", "b=0.5", "--shards-multiple-of", "2", "--quiet"]
    assert main(["export", "photos", "out", *options]) == 0
    tars = sorted(path.name for path in Path("out").glob("*.tar"))
    assert len([name for name in tars if name.startswith("images-a-")]) % 2 == 0
    assert len([name for name in tars if name.startswith("images-b-")]) % 2 == 0
