"""A repair makes a sound set of every planted fault, and says what it could not save."""

from __future__ import annotations

import functools
import shutil
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from pixsieve.engine.inline import InlineExecutor
from pixsieve.repair import repair as repair_with_workers
from pixsieve.storage import tables
from pixsieve.testing import planted
from pixsieve.testing.faults import tree
from pixsieve.verify import verify as verify_with_workers

if TYPE_CHECKING:
    from pathlib import Path

verify = functools.partial(verify_with_workers, workers=0)
repair = functools.partial(repair_with_workers, executor=InlineExecutor())


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A sound export without splits, and one with two."""
    return {
        splits: planted.export(tmp_path_factory.mktemp("set"), splits=splits)
        for splits in (False, True)
    }


def rows_of(folder: Path) -> pa.Table:
    paths = sorted(folder.glob("*.parquet"))
    return pa.concat_tables([tables.read_table(str(path)) for path in paths])


@pytest.mark.parametrize("fault", planted.FAULTS.values(), ids=planted.FAULTS)
@pytest.mark.parametrize("agreeing", [False, True], ids=["plain", "agreeing"])
def test_a_planted_fault_is_mended(
    fault: planted.Fault, agreeing: bool, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[fault.splits], tmp_path / "out")
    fault.plant(folder)
    if agreeing:
        planted.agree(folder)
    before = tree(folder)
    report = repair(folder, tmp_path / "new")
    assert tree(folder) == before
    found = verify(tmp_path / "new")
    assert found.ok
    assert {finding.rule for finding in found.findings} <= {"text-encoding", "json-invalid"}
