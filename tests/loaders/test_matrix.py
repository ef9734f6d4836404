"""Each loader reads every sample of each kind of dataset as the sidecar has it."""

from __future__ import annotations

import pytest

from pixsieve.loaders import LOADERS
from pixsieve.loaders.compare import compare
from pixsieve.testing.faults import tree
from pixsieve.verify.findings import Checked, VerifyReport
from tests.loaders.conftest import OF_EVERY_EXPORT, OF_FORMATS, SETS

pytestmark = pytest.mark.loaders


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("loader", OF_EVERY_EXPORT)
def test_reads_every_sample(loader, name, made):
    check(loader, made(name))


@pytest.mark.parametrize("loader", OF_FORMATS)
def test_reads_every_sample_of_another_format(loader, made):
    check(loader, made("formats"))


def check(loader, path):
    before = tree(path)
    report = compare(path, nothing(path), [loader])
    assert [finding.to_text() for finding in report.findings] == []
    (result,) = report.loaders
    assert result.samples == 200
    fields = {"key", "bytes", "caption"} | ({"size"} if gives_sizes(loader) else set())
    assert set(result.compared) == fields
    assert tree(path) == before


def nothing(path):
    return VerifyReport(
        path=str(path), kind="pixsieve", findings=(), checked=Checked(), unchecked=()
    )


def gives_sizes(loader):
    return "decode" in LOADERS[loader].can or LOADERS[loader].reads != "tars"
