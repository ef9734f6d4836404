"""What is made of finished shards: index files for loaders, and other formats.

Each piece is a unit of work: it leaves alone what stands, and what it writes is whole at any time.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pixsieve.engine.output import clear, place, put_together
from pixsieve.engine.units import Context, Unit
from pixsieve.export.files import FileRecord, record, record_of, stands
from pixsieve.export.finished import MEMBER_COLUMNS, About, members_of
from pixsieve.export.formats import FORMATS
from pixsieve.export.indexes import INDEXES
from pixsieve.export.indexes.base import Desk
from pixsieve.fingerprint import fingerprint
from pixsieve.storage.local import storage_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pixsieve.engine.job import Job, Underway
    from pixsieve.export.finished import Dataset, Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Files that stand in the output; ``written`` is false where nothing had to be."""

    files: tuple[FileRecord, ...]
    written: bool

    @property
    def tables(self) -> tuple[()]:
        return ()


_RUN = 8
"""Shards whose index files are one unit of work: a file costs more than what is in it."""
Make = Callable[[Context], Files]


def write_indexes(job: Job, dataset: Dataset, names: Sequence[str]) -> Files:
    """Write the index files of those names."""
    beside = [name for name in names if INDEXES[name].suffix is not None]
    versions = [(name, INDEXES[name].version) for name in names]
    scratch = job.ledger.root / "tables"
    work: list[tuple[str, str, Make]] = []
    if beside:
        runs = [
            dataset.shards[start : start + _RUN] for start in range(0, len(dataset.shards), _RUN)
        ]
        work += [
            (
                fingerprint("index files", versions, shards),
                f"index files from {shards[0].tar.name} on",
                functools.partial(_index_shards, beside, dataset.about, shards),
            )
            for shards in runs
        ]
    told = [each.name for each in dataclasses.fields(About)]
    described = fingerprint(
        [(name, getattr(dataset, name)) for name in told if name not in ("folder", "columns")],
        str(dataset.columns),
        [shard.sidecar.sha256 for shard in dataset.shards],
    )
    whole = [name for name in names if INDEXES[name].files]
    if whole:
        key = fingerprint("index files of the dataset", versions, described)
        bound = functools.partial(_index_dataset, whole, dataset, scratch)
        work.append((key, "index files of the dataset", bound))
    with job.step("index files", len(work), "units") as step:
        found = _drive(job, step, dataset.folder, work)
        step.facts = {"files": sum(len(each.files) for each in found)}
    return _joined(found)


def write_formats(job: Job, dataset: Dataset, names: Sequence[str]) -> Files:
    """Write the other formats of those names; return the files that the manifest lists."""
    with job.step("formats", len(names) * len(dataset.shards), "shards") as step:
        done = [_write_format(job, step, dataset, name) for name in names]
        step.facts = {"formats": len(names)}
    return _joined(done)


def _write_format(job: Job, step: Underway, dataset: Dataset, name: str) -> Files:
    made = FORMATS[name]
    folder = dataset.folder / name
    keys = [
        fingerprint("format", name, made.version, dataset.plan_sha256, shard)
        for shard in dataset.shards
    ]
    try:
        if folder.exists() and not any(job.ledger.done(key, Files) for key in keys):
            clear(folder)  # of another export, or nobody knows any more what is in it
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise storage_error("cannot use", folder, error) from error
    work: list[tuple[str, str, Make]] = [
        (
            key,
            f"{name} of {shard.tar.name}",
            functools.partial(_convert, name, dataset.about, shard),
        )
        for key, shard in zip(keys, dataset.shards, strict=True)
    ]
    written = _drive(job, step, dataset.folder, work)
    inside = [[file.name.partition("/")[2] for file in each.files] for each in written]
    key = fingerprint(
        "format as a whole", name, made.version, dataset.plan_sha256, str(dataset.columns),
        [[file.sha256 for file in each.files] for each in written],
    )  # fmt: skip
    bound = functools.partial(_finish, name, dataset, inside)
    (finished,) = _drive(
        job, step, dataset.folder, [(key, f"{name} as a whole", bound)], counted=False
    )
    found = _joined([*written, finished])
    listed = [file for file in found.files if made.is_listed(file.name.partition("/")[2])]
    return dataclasses.replace(found, files=tuple(listed))


def _joined(found: Sequence[Files]) -> Files:
    return Files(
        files=tuple(file for each in found for file in each.files),
        written=any(each.written for each in found),
    )


def _drive(
    job: Job,
    step: Underway,
    folder: Path,
    work: Sequence[tuple[str, str, Make]],
    *,
    counted: bool = True,
) -> list[Files]:
    """Run units of (fingerprint, name, what to do); the results are in their order.

    ``folder`` is the dataset's, to which the names of files are relative.
    """
    keys = {name: key for key, name, _ in work}
    found: dict[str, Files] = {}

    def units() -> Iterator[Unit]:
        for key, name, make in work:
            expected = job.ledger.done(key, Files)
            yield Unit(name=name, work=functools.partial(_made, folder, expected, make))

    for done in job.drive(units(), step):
        key = keys[done.unit.name]
        job.ledger.commit(key, done.value)
        found[key] = done.value
        if counted:
            job.progress.advance(1)
    return [found[key] for key, _, _ in work]


def _made(
    folder: Path, expected: Files | None, make: Callable[[Context], Files], context: Context
) -> Files:
    """Return what was written before, if all of it is as it was; else write it."""
    if expected is not None and all(stands(folder, file) for file in expected.files):
        return dataclasses.replace(expected, written=False)
    return make(context)


def _index_shards(
    names: Sequence[str], about: About, shards: Sequence[Shard], context: Context
) -> Files:
    del context
    files = {}
    for shard in shards:
        members = members_of(about.sidecar(shard, MEMBER_COLUMNS))
        stem = shard.tar.name.removesuffix(".tar")
        for name in names:
            files[f"{stem}{INDEXES[name].suffix}"] = INDEXES[name].of_shard(members)
    return _written(about.folder, files)


def _index_dataset(
    names: Sequence[str], dataset: Dataset, scratch: Path, context: Context
) -> Files:
    with tempfile.TemporaryDirectory(prefix=".index.", suffix=".tmp", dir=scratch) as empty:
        desk = Desk(scratch=Path(empty), guard=context.guard)
        files: dict[str, bytes | Path] = {}
        for name in names:
            files |= INDEXES[name].of_dataset(dataset, desk)
        return _written(dataset.folder, files)


def _written(folder: Path, files: dict[str, bytes] | dict[str, bytes | Path]) -> Files:
    for parent in {(folder / name).parent for name in files}:
        try:
            parent.mkdir(exist_ok=True)
        except OSError as error:
            raise storage_error("cannot make", parent, error) from error
    small = {folder / name: data for name, data in files.items() if isinstance(data, bytes)}
    wrote = put_together(small)
    for name, made in files.items():
        if isinstance(made, Path):
            wrote |= place(folder / name, made)
    found = (
        record(folder, name) if isinstance(made, Path) else record_of(name, made)
        for name, made in files.items()
    )
    return Files(files=tuple(found), written=wrote)


def _convert(name: str, about: About, shard: Shard, context: Context) -> Files:
    del context
    files = FORMATS[name].write_shard(about, shard, about.folder / name)
    found = tuple(record(about.folder, f"{name}/{file}") for file in files)
    return Files(files=found, written=True)


def _finish(
    name: str,
    dataset: Dataset,
    written: Sequence[Sequence[str]],
    context: Context,
) -> Files:
    del context
    files = FORMATS[name].finish(dataset, written, dataset.folder / name)
    found = tuple(record(dataset.folder, f"{name}/{file}") for file in files)
    return Files(files=found, written=True)
