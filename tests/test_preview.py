"""What a preview says is what brute force finds, and a dry run looks at no image."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from pixsieve.cli import main
from pixsieve.engine.catalog import Catalog
from pixsieve.engine.claim import claim
from pixsieve.engine.inline import InlineExecutor
from pixsieve.engine.job import RunOptions
from pixsieve.engine.preview import BINS, PERCENTILES, Preview, preview
from pixsieve.errors import RunError, UsageError
from pixsieve.pipeline import Pipeline
from pixsieve.query import query
from pixsieve.select.base import Verdicts
from pixsieve.stages import (
    ExactDeduplicationStage,
    FilterStage,
    ImageQualityStage,
    ImageReaderStage,
    ImageWriterStage,
    Needs,
    ScoreStage,
    SelectStage,
    ShuffleStage,
)
from pixsieve.storage import LocalStorage
from pixsieve.testing import images
from pixsieve.testing.faults import tree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixsieve.select.base import Rows
    from pixsieve.stage import ImageBatch, Stage

COUNT = 110
COPIES = 4
BROKEN = 2


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound photographs of growing width, copies of some, and broken ones."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COUNT):
        data = images.photo(number, width=40 + number, height=61)
        (folder / f"p{number:03d}.jpg").write_bytes(data)
        if number < COPIES:
            (folder / f"copy{number}.jpg").write_bytes(data)
        if number < BROKEN:
            (folder / f"broken{number}.jpg").write_bytes(images.truncated(data))
    return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Beauty(ScoreStage):
    """A score from 3 to 8 on a scale from 0 to 10, null for every tenth width."""

    needs = Needs(pixels=16)

    def reads(self) -> tuple[str, ...]:
        return ("width",)

    def adds(self) -> pa.Schema:
        about = {"scale": "0 to 10", "unit": "points", "better": "higher"}
        return pa.schema([pa.field("beauty", pa.float32(), metadata=about)])

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        def score(batch: ImageBatch) -> pa.RecordBatch:
            widths = batch.rows["width"].to_pylist()
            found = [None if w % 10 == 0 else 3 + w * 37 % 50 / 10 for w in widths]
            return pa.RecordBatch.from_arrays([pa.array(found, pa.float32())], schema=self.adds())

        return score


def pipeline(photos: Path, *stages: Stage) -> Pipeline:
    made = Pipeline("photos").add_stage(ImageReaderStage(str(photos)))
    for stage in stages:
        made.add_stage(stage)
    return made


def looked_at(photos: Path, workspace: Path, *stages: Stage, cached_only: bool = False) -> Preview:
    options = RunOptions(workspace=str(workspace))
    plan = pipeline(photos, *stages).plan()
    return preview(plan, InlineExecutor(), options, cached_only=cached_only)


def samples(workspace: Path, *columns: str) -> list[dict[str, float]]:
    """Return these columns of the sound samples."""
    found = query(workspace, "select * from samples where problem is null")
    return found.select(columns).to_pylist()


def at_quantile(values: Sequence[float], threshold: float, share: float) -> float:
    """Return the value so many of the others away from a threshold."""
    ordered = sorted(values)
    step = round(abs(share) * len(ordered))
    if share < 0:
        return ordered[max(sum(v < threshold for v in ordered) - step, 0)]
    return ordered[min(sum(v <= threshold for v in ordered) + step, len(ordered) - 1)]


# -- the numbers ------------------------------------------------------------------------------


def test_filters_thresholds_and_scores_are_those_of_brute_force(photos, tmp_path):
    stages = (
        ImageQualityStage(),
        FilterStage("width >= 60 and 140 > width"),
        FilterStage("brightness between 0.45 and 0.5 or sharpness < 250"),
    )
    found = looked_at(photos, tmp_path, *stages)
    rows = samples(tmp_path, "width", "brightness", "sharpness")

    def wide(row, low=60, high=140):
        return low <= row["width"] < high

    def fine(row, low=0.45, high=0.5, sharp=250):
        return low <= row["brightness"] <= high or row["sharpness"] < sharp

    assert found.sound == len(rows) == COUNT + COPIES
    first, second = found.filters
    assert (first.stage, second.stage) == ("FilterStage 1", "FilterStage 2")
    assert first.drops == sum(not wide(row) for row in rows)
    assert second.drops == sum(not fine(row) for row in rows) > 0
    assert first.drops_alone == sum(not wide(row) and fine(row) for row in rows)
    assert second.drops_alone == sum(not fine(row) and wide(row) for row in rows) > 0
    assert first.drops_alone_at_most == first.drops_alone
    assert first.not_measured == second.not_measured == 0
    assert found.kept_by_filters == found.counts.kept == sum(wide(r) and fine(r) for r in rows)

    by_name = {(each.column, each.value): each for each in found.thresholds}
    assert list(by_name) == [
        ("width", 60), ("width", 140), ("brightness", 0.45), ("brightness", 0.5),
        ("sharpness", 250),
    ]  # fmt: skip
    changed = {
        ("width", 60): lambda row, v: wide(row, low=v) and fine(row),
        ("width", 140): lambda row, v: wide(row, high=v) and fine(row),
        ("brightness", 0.45): lambda row, v: wide(row) and fine(row, low=v),
        ("brightness", 0.5): lambda row, v: wide(row) and fine(row, high=v),
        ("sharpness", 250): lambda row, v: wide(row) and fine(row, sharp=v),
    }
    for (column, value), keeps in changed.items():
        each = by_name[column, value]
        values = [row[column] for row in rows]
        assert each.below == pytest.approx(sum(v < value for v in values) / len(values))
        assert each.above == pytest.approx(sum(v > value for v in values) / len(values))
        for move, share in ((each.lower, -0.05), (each.higher, 0.05)):
            assert move.value == pytest.approx(at_quantile(values, value, share), rel=1e-3)
            kept = sum(keeps(row, np.float32(move.value)) for row in rows)
            assert (move.kept, move.kept_at_most) == (kept, kept)

    scores = {each.column: each for each in found.distributions}
    for column in ("width", "brightness", "sharpness"):
        each, values = scores[column], [row[column] for row in rows]
        assert (each.count, each.nulls, each.not_measured) == (len(rows), 0, 0)
        assert (each.minimum, each.maximum) == (min(values), max(values))
        expected = np.percentile(np.array(values, np.float64), PERCENTILES)
        assert tuple(percent for percent, _ in each.percentiles) == PERCENTILES
        assert [value for _, value in each.percentiles] == pytest.approx(expected.tolist())
        low, high = expected[0], expected[-1]
        assert len(each.histogram) == BINS
        assert sum(each.histogram) == sum(low <= v <= high for v in values)
    assert (scores["sharpness"].scale, scores["sharpness"].better) == ("0 and up", "higher")
    assert "contrast" in scores
    assert "is_gray" not in scores
    assert "height" not in scores


def test_what_a_filter_spared_the_scorer_counts_as_not_measured(photos, tmp_path):
    stages = (FilterStage("width >= 60"), Beauty(), FilterStage("beauty >= 5"))
    found = looked_at(photos, tmp_path, *stages)
    widths = [row["width"] for row in samples(tmp_path, "width")]
    narrow = sum(width < 60 for width in widths)

    def beauty(width):
        return None if width % 10 == 0 else 3 + width * 37 % 50 / 10

    ugly = sum(w >= 60 and not (beauty(w) or 0) >= 5 for w in widths)
    first, second = found.filters
    assert (first.drops, first.not_measured) == (narrow, 0)
    assert (first.drops_alone, first.drops_alone_at_most) == (0, narrow)
    assert (second.drops, second.drops_alone, second.not_measured) == (ugly, ugly, narrow)
    width, score = found.thresholds
    kept = len(widths) - narrow - ugly
    assert found.kept_by_filters == kept
    looser = sum(w >= width.lower.value for w in widths) - sum(w >= 60 for w in widths)
    assert (width.lower.kept, width.lower.kept_at_most) == (kept, kept + looser)
    assert score.lower.kept == score.lower.kept_at_most > kept
    (scores,) = (each for each in found.distributions if each.column == "beauty")
    nulls = sum(w >= 60 and beauty(w) is None for w in widths)
    assert (scores.nulls, scores.not_measured) == (nulls, narrow)
    assert scores.count + nulls + narrow == found.sound


def test_what_was_measured_before_the_filter_was_there_is_measured(photos, tmp_path):
    looked_at(photos, tmp_path, Beauty())
    stages = (FilterStage("width >= 60"), Beauty(), FilterStage("beauty >= 5"))
    found = looked_at(photos, tmp_path, *stages, cached_only=True)
    assert [each.not_measured for each in found.filters] == [0, 0]
    assert found.filters[0].drops_alone == found.filters[0].drops_alone_at_most > 0


def test_the_funnel_leads_from_all_to_what_is_kept(photos, tmp_path):
    stages = (ExactDeduplicationStage(), FilterStage("width >= 60"), ShuffleStage())
    found = looked_at(photos, tmp_path, *stages)
    total = COUNT + COPIES + BROKEN
    assert [(step.stage, step.reason, step.lost) for step in found.funnel] == [
        ("index", "", 0),
        ("inspect", "truncated_image", BROKEN),
        ("ExactDeduplicationStage", "exact_duplicate", COPIES),
        ("FilterStage", "filter", 20),
        ("ShuffleStage", "", 0),
    ]
    assert found.funnel[0].came_in == total
    assert all(step.came_in - step.lost == step.left for step in found.funnel)
    assert found.funnel[-1].left == found.counts.kept
    # the filter alone drops the copies, too: deduplication is not asked again
    assert found.whole_table == ("ExactDeduplicationStage", "ShuffleStage")
    assert found.filters[0].drops == 20 + COPIES
    assert found.kept_by_filters == found.counts.kept


def test_filters_of_a_later_pass_know_what_the_earlier_ones_left(photos, tmp_path):
    stages = (ExactDeduplicationStage(), Beauty(), FilterStage("beauty >= 5"))
    found = looked_at(photos, tmp_path, *stages)
    assert len(pipeline(photos, *stages).plan().passes) == 2
    (only,) = found.filters
    assert only.not_measured == COPIES
    assert found.kept_by_filters == found.counts.kept
    assert found.kept_by_filters_at_most == found.counts.kept + COPIES
    again = looked_at(photos, tmp_path, *stages, cached_only=True)
    assert (again.filters, again.thresholds) == (found.filters, found.thresholds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places(SelectStage):
    """Gives each sample that is still kept the place that it has among them."""

    def adds(self) -> pa.Schema:
        return pa.schema([pa.field("place", pa.int64())])

    def decide(self, rows: Rows) -> Verdicts:
        places = np.cumsum(rows.kept) - 1
        return Verdicts(columns={"place": pa.array(places, mask=~rows.kept)})


def test_what_a_selection_adds_is_not_known_of_what_was_dropped_before(photos, tmp_path):
    stages = (FilterStage("width >= 60"), Places(), FilterStage("place >= 50"))
    found = looked_at(photos, tmp_path, *stages)
    narrow, later = found.filters
    assert narrow.drops == later.not_measured == 20 + COPIES
    assert (later.drops, later.drops_alone) == (50, 50)
    _, place = found.thresholds
    assert (place.below, place.lower.kept) == (50 / 90, found.counts.kept + round(0.05 * 90))
    assert found.distributions[1].not_measured == 20 + COPIES


def test_expressions_of_columns_have_a_distribution_too(photos, tmp_path):
    found = looked_at(photos, tmp_path, FilterStage("least(width, height) >= 50"))
    (only,) = found.thresholds
    assert only.column == "least(width, height)"
    assert only.below == pytest.approx((10 + COPIES) / (COUNT + COPIES))
    (scores,) = found.distributions
    assert (scores.column, scores.minimum, scores.maximum) == ("least(width, height)", 40, 61)


def test_what_has_no_order_or_is_no_column_is_no_threshold(photos, tmp_path):
    where = "frames = 1 and len(list_filter([width], lambda x: x > 5)) = 1 and format = 'jpeg'"
    found = looked_at(photos, tmp_path, FilterStage(where))
    assert found.thresholds == found.distributions == ()


def test_a_filter_that_keeps_nothing_leaves_a_page(photos, tmp_path):
    found = looked_at(photos, tmp_path, FilterStage("width > 9000"), Beauty())
    assert found.counts.kept == 0
    assert any("almost everything" in warning for warning in found.warnings)
    (_, scores) = sorted(found.distributions, key=lambda each: each.column, reverse=True)
    assert (scores.column, scores.count, scores.histogram) == ("beauty", 0, ())


def test_half_a_point_on_a_scale_to_ten_is_told(photos, tmp_path):
    found = looked_at(photos, tmp_path, Beauty(), FilterStage("coalesce(beauty, 5) >= 0"))
    assert any("almost nothing" in warning for warning in found.warnings)
    found = looked_at(photos, tmp_path, Beauty(), FilterStage("beauty is null or beauty >= 0.5"))
    assert any("almost nothing" in warning for warning in found.warnings)
    hint = (
        "FilterStage: none of the values of beauty (0 to 10) lie below 0.5: does it fit the scale?"
    )
    assert hint in found.warnings
    found = looked_at(photos, tmp_path, Beauty(), FilterStage("beauty >= 5"))
    assert found.warnings == ()


# -- a dry run --------------------------------------------------------------------------------


@pytest.fixture
def no_source(photos, monkeypatch):
    """Let nothing read a file of the source."""
    opened = LocalStorage.open

    def refuse(self, path):
        assert not str(path).startswith(str(photos)), f"{path} was read"
        return opened(self, path)

    def activate():
        monkeypatch.setattr(LocalStorage, "open", refuse)

    return activate


def test_a_dry_run_reads_no_image(photos, tmp_path, no_source):
    stages = (ImageQualityStage(), FilterStage("sharpness > 150"), ExactDeduplicationStage())
    before = looked_at(photos, tmp_path, *stages)
    assert before.decoded == COUNT + COPIES
    no_source()
    again = looked_at(photos, tmp_path, *stages, cached_only=True)
    assert again.decoded == 0
    assert (again.counts, again.thresholds) == (before.counts, before.thresholds)
    other = (ImageQualityStage(), FilterStage("sharpness > 250"))
    moved = looked_at(photos, tmp_path, *other, cached_only=True)
    assert moved.counts.kept < before.counts.kept


def test_what_is_missing_is_counted(photos, tmp_path, no_source):
    narrow = (FilterStage("width >= 100"), Beauty(), FilterStage("beauty > 4"))
    looked_at(photos, tmp_path, *narrow)
    no_source()
    looser = (FilterStage("width >= 95"), Beauty(), FilterStage("beauty > 4"))
    with pytest.raises(RunError, match=r"5 of 116 samples lack .*\(Beauty: 5\).*pixsieve select"):
        looked_at(photos, tmp_path, *looser, cached_only=True)
    tighter = (FilterStage("width >= 105"), Beauty(), FilterStage("beauty > 4"))
    looked_at(photos, tmp_path, *tighter, cached_only=True)
    nothing = (FilterStage("width >= 900"), Beauty())
    looked_at(photos, tmp_path, *nothing, cached_only=True)
    more = (*tighter, ImageQualityStage())
    with pytest.raises(RunError, match=r"lack .*\(ImageQualityStage: \d+\)"):
        looked_at(photos, tmp_path, *more, cached_only=True)


def test_without_scores_nothing_is_made(photos, tmp_path):
    with pytest.raises(RunError, match="has no scores yet; measure"):
        looked_at(photos, tmp_path / "ws", Beauty(), cached_only=True)
    assert not (tmp_path / "ws").exists()
    plan = pipeline(photos, Beauty(), ImageWriterStage(output_dir=str(tmp_path / "out"))).plan()
    with pytest.raises(RunError, match="has no scores yet"):
        preview(plan, InlineExecutor(), cached_only=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match="needs a workspace"):
        preview(pipeline(photos, Beauty()).plan(), InlineExecutor(), cached_only=True)


def test_new_sources_are_told(photos, tmp_path):
    own = Path(shutil.copytree(photos, tmp_path / "own"))
    looked_at(own, tmp_path / "ws", Beauty())
    (own / "new.jpg").write_bytes(images.photo(500))
    with pytest.raises(RunError, match="1 of 1 sources are new or have changed"):
        looked_at(own, tmp_path / "ws", Beauty(), cached_only=True)


def test_scores_of_a_pipeline_without_a_writer_serve_one_that_has_one(photos, tmp_path, no_source):
    looked_at(photos, tmp_path / "ws", Beauty())
    no_source()
    writer = ImageWriterStage(output_dir=str(tmp_path / "out"), image_format="png")
    stages = (Beauty(), FilterStage("beauty > 4"), writer)
    found = looked_at(photos, tmp_path / "ws", *stages, cached_only=True)
    assert found.counts.kept > 0
    assert not (tmp_path / "out").exists()


# -- the output -------------------------------------------------------------------------------


def test_a_finished_dataset_stays_as_it_is(photos, tmp_path):
    output = tmp_path / "out"
    writer = ImageWriterStage(output_dir=str(output))
    pipeline(photos, Beauty(), FilterStage("beauty > 4"), writer).run(InlineExecutor())
    before = tree(output)
    state = output / ".pixsieve"
    catalog = (state / Catalog.FILE).read_bytes()
    inside = sorted(path.name for path in state.iterdir())
    plan = pipeline(photos, Beauty(), FilterStage("beauty > 6"), writer).plan()
    with claim(state):  # a run is at work there
        found = preview(plan, InlineExecutor(), cached_only=True)
    assert 0 < found.counts.kept < COUNT
    assert tree(output) == before
    assert (state / Catalog.FILE).read_bytes() == catalog
    assert sorted(path.name for path in state.iterdir()) == inside


def test_a_preview_leaves_what_a_run_goes_on_with(photos, tmp_path):
    output = tmp_path / "out"
    made = pipeline(
        photos, Beauty(), FilterStage("beauty > 4"), ImageWriterStage(output_dir=str(output))
    )
    found = preview(made.plan(), InlineExecutor(), cached_only=False)
    assert found.decoded > 0
    assert [path.name for path in output.iterdir()] == [".pixsieve"]
    assert query(output, "select count(*) as n from samples").to_pylist() == [{"n": 116}]
    result = made.run(InlineExecutor())
    assert result.decoded == 0
    assert result.counts == found.counts


def test_too_many_failures_are_a_warning(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    (source / "a.jpg").write_bytes(images.photo(1))
    (source / "b.jpg").write_bytes(images.truncated(images.photo(2)))
    found = looked_at(source, tmp_path / "ws", FilterStage("width > 1"))
    assert (found.counts.failed, found.counts.kept) == (1, 1)
    assert any("1 of 2" in warning for warning in found.warnings)


# -- the command ------------------------------------------------------------------------------

RECIPE = """\
name: photos
stages:
  - ImageReaderStage: {path_or_paths: PHOTOS}
  - FilterStage: {where: width >= 50}
  - ImageQualityStage
  - FilterStage: {where: sharpness > 10}
  - ExactDeduplicationStage
  - ImageWriterStage: {output_dir: out}
"""


@pytest.fixture
def recipe(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(RECIPE.replace("PHOTOS", str(photos)))
    return "recipe.yaml"


def test_the_page(recipe, capsys):
    assert main(["select", recipe, "--dry-run"]) == RunError.exit_code
    assert "has no scores yet" in capsys.readouterr().err
    assert main(["select", recipe, "--workers", "1", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["select", recipe, "--dry-run", "--workers", "1"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(
        """\
photos: 100 of 116 samples are kept
                                                    came in  lost  left  of all
  index                                                 116     0   116  100.0%
  inspect                  failed: truncated_image      116     2   114   98.3%
  FilterStage 1            dropped: filter              114    14   100   86.2%
  FilterStage 2                                         100     0   100   86.2%
  ExactDeduplicationStage                               100     0   100   86.2%

each filter by itself, of 114 sound samples
                                 drops         only it  not measured
  FilterStage 1  width >= 50        14  12.3%  0 to 14
  FilterStage 2  sharpness > 10      0   0.0%        0            14
  only it: what all other filters would keep; a range where some of them lack the scores to tell
  not measured: a stage before it spared them, so that they have no scores

thresholds, and the same moved by 5 % of the values
"""
    )
    assert "  not asked again with moved thresholds: ExactDeduplicationStage\n" in page
    assert "█" in page
    assert "0 and up, squared levels of 255; higher is better; 100 values, 14 not measured" in page
    assert "warning: FilterStage 2: none of the values of sharpness (0 and up) lie below 10" in page
    assert page.endswith("out/.pixsieve; nothing was exported\n")


def test_the_page_as_json(recipe, capsys):
    assert main(["select", recipe, "--workspace", "ws", "--workers", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"indexed": 116, "kept": 100, "dropped": 14, "failed": 2}
    assert [each["stage"] for each in found["filters"]] == ["FilterStage 1", "FilterStage 2"]
    (sharpness,) = (each for each in found["distributions"] if each["column"] == "sharpness")
    assert list(sharpness["percentiles"]) == [str(percent) for percent in PERCENTILES]
    assert found["thresholds"][0]["lower"].keys() == {"value", "kept", "kept_at_most"}
    assert not Path("out").exists()
