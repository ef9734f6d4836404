"""A scorer of a user's own: in an installed package, from a recipe, in worker processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pixsieve.testing import images

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "own_scorer"
MODULE = (EXAMPLE / "own_scorer.py").read_text()
RECIPE = (EXAMPLE / "recipe.yaml").read_text()
PLAIN = RECIPE.replace("  - Warmth\n", "").replace("warmth >= 0", "width > 0")
COUNT = 12


def wheel(folder: Path, name: str, module: str, stages: dict[str, str]) -> Path:
    """Pack a package of one module as a build backend does."""
    announced = "".join(f"{key} = {value}\n" for key, value in stages.items())
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[pixsieve.stages]\n{announced}",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as packed:
        for file, text in files.items():
            packed.writestr(file, text)
    return path


def install(folder: Path, *wheels: Path) -> Path:
    target = folder / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), *map(str, wheels)], check=True)
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where the example's package is installed."""
    folder = tmp_path_factory.mktemp("plugin")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    stages = project["entry-points"]["pixsieve.stages"]
    return install(folder, wheel(folder, project["name"].replace("-", "_"), MODULE, stages))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """Where that package is installed among such as are at fault."""
    folder = tmp_path_factory.mktemp("troubled")
    warmth = "own_scorer:Warmth"
    return install(
        folder,
        wheel(folder, "own_scorer", MODULE, {"Warmth": warmth, "Twice": warmth}),
        wheel(folder, "twin", MODULE, {"Twice": "twin:Warmth"}),
        wheel(folder, "lacks_torch", "import no_such_torch", {"Lacking": "lacks_torch:Lacking"}),
        wheel(folder, "unparsed", "class Unparsed(:", {"Unparsed": "unparsed:Unparsed"}),
        wheel(folder, "raising", "1 / 0", {"Raising": "raising:Raising"}),
        wheel(folder, "renamed", MODULE, {"Renamed": "renamed:Wramth"}),
        wheel(folder, "no_class", MODULE, {"Whole": "no_class"}),
        wheel(folder, "no_stage", MODULE, {"Mean": "no_stage:score", "Batch": "no_stage:Needs"}),
        wheel(folder, "cold", MODULE.replace("def load", "def lode"), {"Cold": "cold:Warmth"}),
        wheel(folder, "bare", MODULE.replace("@dataclass(", "(lambda **_: lambda c: c)("),
              {"Bare": "bare:Warmth"}),
        wheel(folder, "usurper", MODULE, {"FilterStage": "usurper:Warmth"}),
    )  # fmt: skip


@pytest.fixture
def desk(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(COUNT):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(images.photo(number, 320, 280))
    return tmp_path


def pixsieve(desk: Path, path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pixsieve", *arguments],
        cwd=desk,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(ROOT / "src")])},
        capture_output=True,
        text=True,
        check=False,
    )


def told(desk: Path, path: Path, *arguments: str) -> str:
    """Return what a command that succeeds prints."""
    done = pixsieve(desk, path, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def ran(desk: Path, path: Path, recipe: str) -> dict[str, object]:
    """Run a recipe with two workers and return its result."""
    (desk / "recipe.yaml").write_text(recipe)
    options = ("--workers", "2", "--workspace", "ws", "--json")
    done = pixsieve(desk, path, "run", "recipe.yaml", *options)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    return result


def complaint(desk: Path, path: Path, recipe: str, command: str = "describe") -> str:
    """Return the one line with which a command refuses a recipe."""
    (desk / "recipe.yaml").write_text(recipe)
    done = pixsieve(desk, path, command, "recipe.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    return line


def test_the_documented_scorer_is_the_installed_one_and_has_ten_lines():
    assert f"```python\n{MODULE}```\n" in (ROOT / "docs" / "python.md").read_text()
    scorer = MODULE[MODULE.index("@dataclass") :]
    assert len([line for line in scorer.splitlines() if line]) == 10


def test_an_installed_scorer_is_used_by_its_name(installed, desk):
    (desk / "recipe.yaml").write_text(RECIPE)
    assert "· Warmth(); adds warmth\n" in told(desk, installed, "describe", "recipe.yaml")

    result = ran(desk, installed, RECIPE)
    kept = result["counts"]["kept"]
    assert result["decoded"] == COUNT
    assert 0 < kept < COUNT

    asked = "select count(*) as n, min(warmth) >= 0 as warm from samples"
    assert json.loads(told(desk, installed, "query", "out", asked, "--json")) == {
        "n": kept,
        "warm": True,
    }
    told(desk, installed, "verify", "out", "--quiet")
    (sidecar,) = (desk / "out").glob("images-*.parquet")
    assert pq.read_schema(sidecar).field("warmth").metadata == {
        b"scale": b"-255 to 255",
        b"unit": b"levels of red less those of blue",
    }
    assert "  - Warmth\n" in (desk / "out" / "recipe.yaml").read_text()


def test_another_threshold_on_its_column_decodes_nothing(installed, desk):
    first = ran(desk, installed, RECIPE)
    looser = RECIPE.replace("warmth >= 0", "warmth >= -255").replace("out/", "other/")
    second = ran(desk, installed, looser)
    assert (first["decoded"], second["decoded"]) == (COUNT, 0)
    assert first["counts"]["kept"] < second["counts"]["kept"] == COUNT


def test_a_threshold_beyond_its_scale_is_warned_of(installed, desk):
    (desk / "recipe.yaml").write_text(RECIPE.replace("warmth >= 0", "warmth >= 300"))
    assert "! FilterStage: 'warmth >= 300' compares warmth with 300, but its scale is" in told(
        desk, installed, "describe", "recipe.yaml"
    )


def test_a_misspelt_name_proposes_that_of_the_package(installed, desk):
    line = complaint(desk, installed, RECIPE.replace("- Warmth", "- Warmht"), "run")
    assert "recipe.yaml:4: there is no stage 'Warmht'; did you mean 'Warmth'?; expected one" in line


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "Lacking",
            "of the package lacks_torch cannot be imported: ModuleNotFoundError: No mo",
        ),
        ("Lacking", "; try: python -c 'import lacks_torch'"),
        ("Unparsed", "of the package unparsed cannot be imported: SyntaxError: "),
        ("Raising", "of the package raising cannot be imported: ZeroDivisionError: division by "),
        ("Renamed", "of the package renamed cannot be imported: AttributeError: module 'renamed' "),
        ("Whole", "of the package no_class is announced as 'no_class'; expected module:Class"),
        ("Mean", "'Mean' of the package no_stage is no stage: it is a function; expected "),
        ("Batch", "'Batch' of the package no_stage is no stage: expected a subclass of ScoreStage"),
        ("Cold", "'Cold' of the package cold is no stage: it lacks load()"),
        ("Bare", "'Bare' of the package bare is no stage: it lacks the line @dataclass("),
        (
            "Twice",
            "'Twice'; spell out which one: own_scorer:Warmth (own_scorer) or twin:Warmth (",
        ),
        ("FilterStage: {warm: 1}", "; that of the package usurper is spelled usurper:Warmth"),
    ],
)
def test_a_package_at_fault_is_named_in_one_line(troubled, desk, name, says):
    line = complaint(desk, troubled, RECIPE.replace("- Warmth", f"- {name}"))
    assert line.startswith("pixsieve: recipe.yaml:4: ")
    assert says in line


def test_packages_at_fault_hurt_no_other_recipe(troubled, desk):
    assert ran(desk, troubled, PLAIN)["counts"]["kept"] == COUNT
    other = RECIPE.replace("out/", "other/")
    assert ran(desk, troubled, other.replace("- Warmth", "- twin:Warmth"))["decoded"] == COUNT
    assert "  - twin:Warmth\n" in (desk / "other" / "recipe.yaml").read_text()


THRIFTY = """\
import os
from dataclasses import dataclass

import pyarrow as pa

from pixsieve.stages import FilterStage, Needs, ScoreStage


def note(what):
    with open("log", "a") as log:
        log.write(f"{what} {os.getpid()}\\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thrift(ScoreStage):
    factor: float = 1.0
    score_threshold: float | None = None

    needs = Needs(encoded=True, pixels=32)

    def __post_init__(self):
        if self.factor <= 0:
            raise ValueError(f"factor is {self.factor}; expected more than 0")

    def reads(self):
        return ("caption", "width")

    def adds(self):
        return pa.schema([pa.field("thrift", pa.float32())])

    def selection(self):
        if self.score_threshold is None:
            return None
        return FilterStage(f"thrift >= {self.score_threshold!r}")

    def load(self):
        note("load")
        factor = self.factor

        def score(batch):
            note("score")
            captions = batch.rows["caption"].to_pylist()
            given = zip(captions, batch.pixels, batch.encoded)
            values = [text and factor * seen.size / len(data) for text, seen, data in given]
            return pa.record_batch({"thrift": values})

        return score
"""
TARS = """\
stages:
  - ImageReaderStage: {path_or_paths: in/}
  - thrifty:Thrift
  - ImageWriterStage: {output_dir: out/}
"""


@pytest.fixture
def bench(tmp_path):
    """Eight tars, a module beside the recipe, and every other image without a caption."""
    (tmp_path / "thrifty.py").write_text(THRIFTY)
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").write_text("a caption")
    for shard in range(8):
        (tmp_path / "a.jpg").write_bytes(images.photo(shard, 320, 280))
        with tarfile.open(tmp_path / "in" / f"{shard}.tar", "w") as tar:
            tar.add(tmp_path / "a.jpg", "a.jpg")
            tar.add(tmp_path / "a.jpg", "b.jpg")
            tar.add(tmp_path / "a.txt", "a.txt")
    return tmp_path


def logged(bench: Path) -> list[str]:
    lines = (bench / "log").read_text().splitlines()
    (bench / "log").unlink()
    return lines


def test_a_scorer_gets_what_it_needs_and_is_loaded_once_per_worker(bench):
    assert ran(bench, bench, TARS)["counts"]["kept"] == 16
    loads = [line for line in logged(bench) if line.startswith("load ")]
    assert len(set(loads)) == len(loads) <= 2
    asked = "select count(*) as n, count(thrift) as scored, min(thrift) > 1 as good from samples"
    assert json.loads(told(bench, bench, "query", "out", asked, "--json")) == {
        "n": 16,
        "scored": 8,
        "good": True,
    }


def test_what_scores_anew_is_another_field_or_code_and_no_threshold(bench):
    def scored(recipe: str, output: str) -> bool:
        ran(bench, bench, recipe.replace("out/", output))
        return (bench / "log").exists() and "score" in " ".join(logged(bench))

    assert scored(TARS, "a/")
    limited = TARS.replace("Thrift", "Thrift: {score_threshold: 10}")
    assert not scored(limited, "b/")
    assert scored(TARS.replace("Thrift", "Thrift: {factor: 2}"), "c/")
    changed = THRIFTY.replace("/ len(data)", "/ len(data) + 1")
    (bench / "thrifty.py").write_text(changed)
    assert scored(TARS, "d/")
    assert not scored(TARS, "d/")


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ('note("load")', "import no_such_torch", 5,
         r"Thrift failed: ModuleNotFoundError: .*\(\S+thrifty.py:\d+, in load\)"),
        ('note("score")', "1 / 0", 5,
         r"Thrift failed: ZeroDivisionError: division by zero \(\S+thrifty.py:\d+, in score\)"),
        ("return score", "return None", 2, r"Thrift: load\(\) is a NoneType, expected a function"),
        ('("caption", "width")', '"caption"', 2, r"reads\(\) is a str, expected a tuple"),
        ("Needs(encoded=True, pixels=32)", "32", 2, "needs is a int, expected a Needs"),
        ("pa.float32()", "pa.float23()", 2, r"failed: AttributeError: .*, in adds\)"),
        ('("caption", "width")', '("widht",)', 2, "did you mean 'width'"),
        ("self.factor <= 0", "self.factor <= 1", 2, "recipe.yaml:3: .*factor is 1.0; expected"),
    ],
)  # fmt: skip
def test_a_fault_of_the_scorer_is_told_in_one_line(bench, old, new, code, says):
    (bench / "thrifty.py").write_text(THRIFTY.replace(old, new))
    (bench / "recipe.yaml").write_text(TARS)
    done = pixsieve(bench, bench, "run", "recipe.yaml", "--workers", "2", "--quiet")
    (line,) = done.stderr.splitlines()
    assert re.search(says, line), line
    assert done.returncode == code
