"""Frictionless: the sidecars' rows through ``datapackage.json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pixsieve.loaders.sidecars import SidecarLoader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pixsieve.loaders.base import Folder, How, Passes, Sample


class FrictionlessLoader(SidecarLoader):
    """``frictionless.Package("datapackage.json")``, each resource that is Parquet."""

    name = "frictionless"
    module = "frictionless"
    distribution = "frictionless"
    install = "pip install 'frictionless[parquet]'"
    through = "datapackage.json"
    can = frozenset()

    def open(self, folder: Folder, how: How) -> Passes:  # noqa: ARG002  # it has no choice
        """Load the library, open the dataset, and return what starts a pass over it."""
        import frictionless

        package = frictionless.Package(f"{folder.path}/{self.through}")
        make = self.reader(folder)
        names = set(folder.sidecars)

        def start() -> Iterator[Sample]:
            for resource in package.resources:
                if resource.path in names:
                    with resource.open() as opened:
                        yield from map(make, opened.row_stream)

        return start
