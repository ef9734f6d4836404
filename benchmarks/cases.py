"""What is compared. Each case is a command that reads the input and fills an output folder."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from corpus import Corpus

    Command = Callable[[Corpus, Path], list[str]]

_IMAGES_PER_TAR = "1000"
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing to measure.

    Attributes:
        name: What it is called in targets and in the JSON.
        title: What it is called in the tables.
        command: Returns the command for an input and an output folder that does not exist yet.
        loose: It reads the folder of loose files, not the tars.
        partial: It reads a part of the input only, so that it has no rate.
    """

    name: str
    title: str
    command: Command
    loose: bool = False
    partial: bool = False


def _shell(script: str) -> Command:
    def command(corpus: Corpus, target: Path) -> list[str]:
        paths = {"tars": corpus.tars, "loose": corpus.loose, "out": target}
        quoted = {name: shlex.quote(str(path)) for name, path in paths.items()}
        return ["/bin/sh", "-ec", script.format_map(quoted)]

    return command


def _decode(processes: str) -> Command:
    def command(corpus: Corpus, _: Path) -> list[str]:
        return [sys.executable, str(_HERE / "run_decode.py"), str(corpus.tars), processes]

    return command


def _export(script: str, *options: str) -> Command:
    def command(corpus: Corpus, target: Path) -> list[str]:
        paths = (str(_HERE / script), str(corpus.tars), str(target))
        return [sys.executable, *paths, _IMAGES_PER_TAR, *options]

    return command


# A durable copy syncs each file, and the folders with their names. Halves: by the tar's last digit.
_COPY_SYNC = "cp -r {tars} {out}; find {out} -exec sync {{}} +"
_TWO_HALVES = (
    "mkdir {out} {out}/a {out}/b; "
    "(cp {tars}/*[02468].tar {out}/a; find {out}/a -exec sync {{}} +) & "
    "(cp {tars}/*[13579].tar {out}/b; find {out}/b -exec sync {{}} +); wait $!"
)

CASES = (
    Case(name="cp", title="cp -r", command=_shell("exec cp -r {tars} {out}")),
    Case(name="cp_sync", title="cp -r, fsync of each file", command=_shell(_COPY_SYNC)),
    Case(name="cp_sync_2", title="the same, two halves at once", command=_shell(_TWO_HALVES)),
    Case(
        name="gnu_tar",
        title="GNU tar of loose files",
        command=_shell("mkdir {out}; exec tar -cf {out}/all.tar -C {loose} ."),
        loose=True,
    ),
    Case(
        name="shard_writer",
        title="webdataset ShardWriter",
        command=_export("run_shard_writer.py"),
    ),
    Case(
        name="reencode",
        title="decode, encode q92, tarfile",
        command=_export("run_reencode.py"),
    ),
    Case(name="decode_1", title="decode a tenth", command=_decode("1"), partial=True),
    Case(name="decode_2", title="the same, two processes", command=_decode("2"), partial=True),
    *(
        Case(
            name=f"{check}_{workers}",
            title=f"pixsieve, {check} check, {workers} worker{'s' * (workers > 1)}",
            command=_export("run_pixsieve.py", check, str(workers)),
        )
        for check in ("header", "full")
        for workers in (1, 2)
    ),
)
