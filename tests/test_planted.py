"""Faults that are planted in sound exports: each is found and named, and sound sets are silent.

Each is planted twice: as it is, and with a manifest that is made to agree, so that it is not by the
digest of a file that it is found.
"""

from __future__ import annotations

import functools
import shutil
from typing import TYPE_CHECKING

import pytest

from pixsieve.testing import planted
from pixsieve.verify import verify as verify_with_workers

if TYPE_CHECKING:
    from pathlib import Path

verify = functools.partial(verify_with_workers, workers=0)


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A sound export without splits, and one with two."""
    return {
        splits: planted.export(tmp_path_factory.mktemp("set"), splits=splits)
        for splits in (False, True)
    }


def test_the_sets_are_sound(sets: dict[bool, Path]) -> None:
    for folder in sets.values():
        assert verify(folder).findings == ()


AGREEING = {name: fault for name, fault in planted.FAULTS.items() if fault.agreed != ""}


def check(fault: planted.Fault, rule: str, folder: Path, stem: str) -> None:
    report = verify(folder)
    found = {finding.rule: finding for finding in reversed(report.findings)}
    assert rule in found, sorted(found)
    file = fault.file.format(shard=stem)
    named = {finding.file for finding in report.findings if finding.rule == rule}
    assert any(name.startswith(file) for name in named) or named == {planted.MANIFEST}


@pytest.mark.parametrize("fault", planted.FAULTS.values(), ids=planted.FAULTS)
def test_a_planted_fault_is_found_and_named(
    fault: planted.Fault, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[fault.splits], tmp_path / "out")
    stem = planted.shards(folder)[1].stem
    fault.plant(folder)
    check(fault, fault.rule, folder, stem)


@pytest.mark.parametrize("fault", AGREEING.values(), ids=AGREEING)
def test_it_is_found_though_the_manifest_agrees(
    fault: planted.Fault, sets: dict[bool, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(sets[fault.splits], tmp_path / "out")
    stem = planted.shards(folder)[1].stem
    fault.plant(folder)
    planted.agree(folder)
    stem = "renamed" if fault.agreed == "shard-name" else stem
    check(fault, fault.agreed or fault.rule, folder, stem)
    assert "file-sha256" not in {finding.rule for finding in verify(folder).findings}
