"""Each loader reads every sample of each kind of dataset as the sidecar has it."""

from __future__ import annotations

import pytest

from pixsieve.loaders import LOADERS
from pixsieve.loaders.compare import compare
from pixsieve.testing.faults import tree
from pixsieve.verify import verify
from tests.loaders.conftest import SETS

pytestmark = pytest.mark.loaders


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("loader", LOADERS)
def test_reads_every_sample(loader, name, made):
    path = made(name)
    before = tree(path)
    report = compare(path, nothing(path), [loader])
    assert [finding.to_text() for finding in report.findings] == []
    (result,) = report.loaders
    assert result.samples == 200
    fields = {"key", "bytes", "caption"} | ({"size"} if gives_sizes(loader) else set())
    assert set(result.compared) == fields
    assert tree(path) == before


def nothing(path):
    return verify(path, sample=0.01, decode=False, load=False, workers=0)


def gives_sizes(loader):
    return "decode" in LOADERS[loader].can or LOADERS[loader].reads == "sidecars"
