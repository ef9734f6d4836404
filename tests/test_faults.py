"""When something fails, it is named, nothing is torn, and the next run comes to the same end.

The faults are real where they can be: a full file system, a limit on file sizes, a read-only
folder, files that change, workers that crash. What these catch and others do not: an error of the
system that comes out as a traceback, a file that is half there after it, work that is taken for
done though it is not, and files of the user's own that get lost.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from pixsieve.engine.local import LocalExecutor
from pixsieve.errors import (
    BusyError,
    FailureBudgetError,
    InterruptedRunError,
    OutputConflictError,
    SourceChangedError,
    SourceNotFoundError,
    StorageError,
)
from pixsieve.testing import images
from pixsieve.testing.corpus import TIME, make_pipeline, run_pipeline
from pixsieve.testing.faults import (
    Hooks,
    Watch,
    leftovers,
    processes,
    times,
    tree,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pixsieve.testing.corpus import Program

MARK = {"PIXSIEVE_TEST_RUN": f"faults-{os.getpid()}"}
STOP_SECONDS = 10.0


def running() -> list[int]:
    """The processes of the programs of this module."""
    return processes(*(f"{name}={value}" for name, value in MARK.items()))


def one_line(text: str) -> str:
    """The last line of what a program said, which is what it ended with."""
    assert "Traceback" not in text, text
    return text.strip().splitlines()[-1]


def manifest(output: Path) -> dict:
    return json.loads((output / "manifest.json").read_bytes())


# -- signals ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source whose run takes a few seconds."""
    folder = tmp_path_factory.mktemp("many")
    data = images.photo(0, 400, 300, "PNG")
    for number in range(240):
        comment = images.chunk(b"tEXt", b"number\0%d" % number)
        (folder / f"{number:04d}.png").write_bytes(data[:33] + comment + data[33:])
    return folder


@pytest.fixture(scope="module")
def many_undisturbed(many: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("many_undisturbed")
    run_pipeline(make_pipeline(many, output, images_per_tar=4), LocalExecutor(workers=2))
    return tree(output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("workers", [0, 2])
def test_signal_ends_the_run_soon_with_a_code_of_its_own(
    many: Path,
    many_undisturbed: dict[str, str],
    tmp_path: Path,
    program: Program,
    number: signal.Signals,
    workers: int,
):
    output = tmp_path / "out"
    pipeline = make_pipeline(many, output, images_per_tar=4)
    process = program.start(pipeline, workers=workers, environment=MARK)
    assert wait_until(lambda: bool([*output.glob("*.tar")]), 60)
    process.send_signal(number)
    began = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - began < STOP_SECONDS
    assert process.returncode == 128 + number
    assert number.name in one_line(said)
    assert wait_until(lambda: not running(), 3)
    Watch(output).look()
    assert leftovers(output) == []
    assert not (output / "manifest.json").exists()
    before = times(output)
    run_pipeline(pipeline, LocalExecutor(workers=2))
    after = times(output)
    redone = [name for name in before if name.endswith(".tar") and after[name] != before[name]]
    assert len(redone) <= max(1, workers)  # those in flight
    assert tree(output) == many_undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_command_ends_on_a_signal_to_the_whole_group(
    many: Path, tmp_path: Path, number: signal.Signals
):
    """As a terminal does it: workers and their server get the signal, too."""
    output = tmp_path / "out"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pixsieve", "export", many, output),
            *("--images-per-tar", "4", "--workers", "2"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **MARK},
        start_new_session=True,
    )
    assert wait_until(lambda: bool([*output.glob("*.tar")]), 60)
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert number.name in one_line(said)
    assert wait_until(lambda: not running(), 3)
    Watch(output).look()
    assert leftovers(output) == []


def test_second_signal_ends_the_run_at_once(many: Path, tmp_path: Path, program: Program):
    """Even while the run's own process is busy in one long unit."""
    output = tmp_path / "out"
    pipeline = make_pipeline(many, output, images_per_tar=300)
    process = program.start(pipeline, workers=0, environment=MARK)
    assert wait_until(lambda: bool([*output.glob(".*.tmp")]), 60)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert time.monotonic() - began < 3
    assert process.returncode == 128 + signal.SIGTERM
    run_pipeline(pipeline, LocalExecutor(workers=2))
    assert leftovers(output) == []


def test_signal_handlers_of_the_program_are_put_back(corpus: Path, tmp_path: Path):
    before = signal.getsignal(signal.SIGINT)
    stop = Hooks(at_unit={3: lambda: signal.raise_signal(signal.SIGINT)})
    with pytest.raises(InterruptedRunError) as caught:
        run_pipeline(make_pipeline(corpus / "files", tmp_path / "out"), progress=stop)
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before


# -- the environment --------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes file systems of a few KiB, which can grow."""
    mounted = []

    def mount(kib: int) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir(exist_ok=True)
        option = f"size={kib}k" if not mounted else f"remount,size={kib}k"
        command = ["mount", "-t", "tmpfs", "-o", option, "none", folder]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount file systems")
        mounted.append(folder)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", mounted[0]], check=True)


@pytest.mark.parametrize("kib", [8, 24, 60, 120, 200, 300])
@pytest.mark.parametrize("workers", [0, 2])
def test_full_disk_is_named_and_tears_nothing(
    corpus: Path,
    small_disk: Callable[[int], Path],
    undisturbed: dict[str, str],
    kib: int,
    workers: int,
):
    """It fills up in every step: in the ledger, in tables, in tars, in the files at the end."""
    output = small_disk(kib) / "out"
    pipeline = make_pipeline(corpus / "files", output)
    executor = LocalExecutor(workers=workers) if workers else None
    with pytest.raises(StorageError, match="No space left on device") as caught:
        run_pipeline(pipeline, executor)
    assert str(output) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.errno == errno.ENOSPC
    Watch(output).look()
    assert leftovers(output) == []
    assert not (output / "manifest.json").exists()
    small_disk(4096)
    run_pipeline(pipeline, executor)
    assert tree(output) == undisturbed


def test_full_disk_is_one_line_and_exit_code_4(
    corpus: Path, small_disk: Callable[[int], Path], program: Program
):
    output = small_disk(200) / "out"
    code, said = program.run(make_pipeline(corpus / "files", output))
    assert code == 4
    assert "No space left on device" in one_line(said)
    assert str(output) in one_line(said)


@pytest.mark.parametrize("workers", [0, 2])
def test_limit_on_file_sizes_is_named_and_tears_nothing(
    corpus: Path, tmp_path: Path, program: Program, undisturbed: dict[str, str], workers: int
):
    output = tmp_path / "out"
    pipeline = make_pipeline(corpus / "files", output)
    limited = ("prlimit", "--fsize=30000", "--")
    code, said = program.run(pipeline, workers=workers, before=limited)
    assert code == 4
    assert "File too large" in one_line(said)
    assert ".tar" in one_line(said)
    Watch(output).look()
    assert leftovers(output) == []
    assert program.run(pipeline, workers=workers)[0] == 0
    assert tree(output) == undisturbed


@pytest.fixture
def open_folder(corpus: Path) -> Iterator[Path]:
    """A folder that everybody can come to, with the corpus in it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(corpus / "files", folder / "files")
        folder.chmod(0o755)
        yield folder


@contextlib.contextmanager
def somebody_else() -> Iterator[None]:
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("closed", ["", "out", "out/.pixsieve", "out/.pixsieve/tables"])
def test_folder_that_may_not_be_written_to_is_named(
    open_folder: Path, undisturbed: dict[str, str], closed: str
):
    output = open_folder / "out"
    pipeline = make_pipeline(open_folder / "files", output)
    if closed:
        with contextlib.suppress(InterruptedRunError):  # whose working state is there
            stop = Hooks(at_start={"index": lambda: signal.raise_signal(signal.SIGTERM)})
            run_pipeline(pipeline, progress=stop)
        for folder in (output, *output.rglob("*")):
            folder.chmod(0o777)
    (open_folder / closed).chmod(0o555)
    with somebody_else(), pytest.raises(StorageError, match="Permission denied") as caught:
        run_pipeline(pipeline)
    assert str(open_folder / closed) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [*output.glob("*.tar")]
    (open_folder / closed).chmod(0o777)
    with somebody_else():
        run_pipeline(pipeline)
    assert tree(output) == undisturbed


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_source_that_may_not_be_read_is_named(open_folder: Path):
    (open_folder / "out").mkdir()
    (open_folder / "out").chmod(0o777)
    (open_folder / "files" / "dogs" / "008.jpg").chmod(0)
    with somebody_else(), pytest.raises(StorageError, match=r"dogs/008\.jpg: Permission denied"):
        run_pipeline(make_pipeline(open_folder / "files", open_folder / "out"))


def test_read_only_file_system_is_named(corpus: Path, small_disk: Callable[[int], Path]):
    disk = small_disk(4096)
    pipeline = make_pipeline(corpus / "files", disk / "out")
    run_pipeline(pipeline)
    before = tree(disk / "out")
    (disk / "out" / "manifest.json").unlink()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StorageError, match="Read-only file system"):
        run_pipeline(pipeline)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    run_pipeline(pipeline)
    assert tree(disk / "out") == before


class Failing:
    """A function of ``os`` that fails in its n-th call and else does what it always does."""

    def __init__(self, name: str, number: int, turn: int) -> None:
        self.calls = 0
        self._real = getattr(os, name)
        self._number = number
        self._turn = turn

    def __call__(self, *arguments: object, **options: object) -> object:
        self.calls += 1
        if self.calls == self._turn:
            raise OSError(self._number, os.strerror(self._number))
        return self._real(*arguments, **options)


@pytest.mark.parametrize("function", ["fsync", "rename", "link"])
@pytest.mark.parametrize("number", [errno.EIO, errno.EDQUOT])
def test_every_call_that_fails_is_an_error_and_the_next_run_mends_it(
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    function: str,
    number: int,
):
    """The first call fails, then the second, and so on, up to the last that a run makes."""
    pipeline = make_pipeline(corpus / "files", tmp_path / "out", images_per_tar=30)
    with monkeypatch.context() as patched:
        patched.setattr(os, function, counting := Failing(function, number, 0))
        run_pipeline(pipeline)
    assert counting.calls
    expected = tree(tmp_path / "out")
    for turn in range(1, counting.calls + 1):
        shutil.rmtree(tmp_path / "out")
        with monkeypatch.context() as patched:
            patched.setattr(os, function, Failing(function, number, turn))
            try:
                run_pipeline(pipeline)
            except StorageError as error:
                assert os.strerror(number) in str(error)  # noqa: PT017
            else:
                assert number == errno.EIO  # where trying again may help, it was tried again
        Watch(tmp_path / "out").look()
        run_pipeline(pipeline)
        assert tree(tmp_path / "out") == expected
        assert leftovers(tmp_path / "out") == []


# -- sources ----------------------------------------------------------------------------------


def touch(path: Path) -> None:
    path.write_bytes(path.read_bytes())
    os.utime(path, (TIME + 1, TIME + 1))


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    os.utime(path, (TIME, TIME))


def shrink(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    os.utime(path, (TIME, TIME))


CHANGES = {"vanishes": Path.unlink, "is written anew": touch, "grows": grow, "shrinks": shrink}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("step", ["inspect", "export"])
@pytest.mark.parametrize("workers", [0, 2])
def test_source_that_changes_during_the_run_is_named(
    source: Path,
    tmp_path: Path,
    undisturbed: dict[str, str],
    change: str,
    step: str,
    workers: int,
):
    output = tmp_path / "out"
    victim = source / "dogs" / "008.jpg"
    kept = victim.read_bytes()
    pipeline = make_pipeline(source, output)
    executor = LocalExecutor(workers=workers) if workers else None
    hooks = Hooks(at_start={step: lambda: CHANGES[change](victim)})
    with pytest.raises(SourceChangedError, match=r"dogs/008\.jpg"):
        run_pipeline(pipeline, executor, progress=hooks)
    Watch(output).look()
    assert leftovers(output) == []
    assert not (output / "manifest.json").exists()
    victim.write_bytes(kept)
    os.utime(victim, (TIME, TIME))
    run_pipeline(pipeline, executor)
    assert tree(output) == undisturbed


@pytest.mark.parametrize("name", ["00000.tar", "00002.tar.gz"])
@pytest.mark.parametrize("change", ["vanishes", "is written anew", "shrinks"])
def test_tar_that_changes_between_index_and_export_is_named(
    corpus: Path, tmp_path: Path, change: str, name: str
):
    source = Path(shutil.copytree(corpus / "tars", tmp_path / "source"))
    pipeline = make_pipeline(source, tmp_path / "out")
    hooks = Hooks(at_start={"export": lambda: CHANGES[change](source / name)})
    with pytest.raises(SourceChangedError, match=name):
        run_pipeline(pipeline, progress=hooks)
    Watch(tmp_path / "out").look()
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_image_replaced_after_an_unfinished_run_gives_what_a_fresh_run_gives(
    source: Path, tmp_path: Path
):
    """Nothing of the old content is taken from the ledger, and no old shard is left."""
    output = tmp_path / "out"
    pipeline = make_pipeline(source, output)
    stop = Hooks(at_start={"account": lambda: signal.raise_signal(signal.SIGTERM)})
    with pytest.raises(InterruptedRunError):
        run_pipeline(pipeline, progress=stop)
    old = {path.name for path in output.glob("*.tar")}
    assert old
    (source / "dogs" / "008.jpg").write_bytes(images.photo(4711, 128, 96))
    run_pipeline(pipeline)
    run_pipeline(make_pipeline(source, tmp_path / "fresh"))
    assert tree(output) == tree(tmp_path / "fresh")
    assert not old & {path.name for path in output.iterdir()}


@pytest.mark.parametrize("kept", [True, False])
def test_source_that_changed_after_the_end_is_told_and_the_dataset_stays(
    source: Path, tmp_path: Path, undisturbed: dict[str, str], kept: bool
):
    output = tmp_path / "out"
    run_pipeline(make_pipeline(source, output))
    if kept:
        (source / "dogs" / "008.jpg").write_bytes(images.photo(4711, 128, 96))
    else:
        (source / "dogs" / "list.csv").write_bytes(b"not exported, but accounted for")
    with pytest.raises(OutputConflictError, match="other inputs"):
        run_pipeline(make_pipeline(source, output))
    assert tree(output) == undisturbed


def test_source_that_is_not_there_is_named_and_makes_no_output(tmp_path: Path):
    with pytest.raises(SourceNotFoundError, match="nowhere"):
        run_pipeline(make_pipeline(tmp_path / "nowhere", tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_source_is_never_written_to(source: Path, tmp_path: Path):
    before = times(source)
    run_pipeline(make_pipeline(source, tmp_path / "out"), LocalExecutor(workers=2))
    assert times(source) == before


def test_too_many_bad_images_end_the_run(source: Path, tmp_path: Path):
    for path in [*source.rglob("*.jpg")][:40]:
        path.write_bytes(images.truncated(path.read_bytes()))
    with pytest.raises(FailureBudgetError, match="truncated_image"):
        run_pipeline(make_pipeline(source, tmp_path / "out"))
    assert not [*(tmp_path / "out").glob("*.tar")]


# -- workers that are lost --------------------------------------------------------------------

CRASHING = """
import hashlib, os, signal
from pixsieve import image

real = image.check_decode

def check_decode(data, header):
    if hashlib.sha256(data).hexdigest() == {victim!r}:
        {deed}
    return real(data, header)

image.check_decode = check_decode
"""


@pytest.mark.parametrize(
    ("deed", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "decoder_crash"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "decoder_crash"),
        ("os._exit(3)", "decoder_crash"),
        ("os.kill(os.getpid(), signal.SIGPROF)", "decode_timeout"),
    ],
)
def test_image_that_ends_its_worker_costs_that_image_only(
    source: Path, tmp_path: Path, program: Program, deed: str, reason: str
):
    victim = source / "dogs" / "008.jpg"
    digest = hashlib.sha256(victim.read_bytes()).hexdigest()
    patch = tmp_path / "patch"
    patch.mkdir()
    (patch / "sitecustomize.py").write_text(CRASHING.format(victim=digest, deed=deed))
    shutil.rmtree(source / "copies")
    path = os.pathsep.join([str(patch), *filter(None, [os.environ.get("PYTHONPATH")])])
    pipeline = make_pipeline(source, tmp_path / "out")
    code, said = program.run(pipeline, environment={"PYTHONPATH": path})
    assert code == 0, said
    rows = pq.read_table(tmp_path / "out" / "dropped" / "dropped.parquet").to_pylist()
    (lost,) = (row for row in rows if row["reason"] == reason)
    assert lost["original_path"] == "dogs/008.jpg"
    assert lost["status"] == "failed"
    victim.unlink()
    (source / "dogs" / "008.txt").unlink()
    (source / "dogs" / "008.json").unlink()
    run_pipeline(make_pipeline(source, tmp_path / "without"))
    made = [tree(tmp_path / name) for name in ("out", "without")]
    told = ("manifest.json", "dropped/dropped.parquet", "README.md")  # what tells counts
    assert [digest for name, digest in made[0].items() if name not in told] == [
        digest for name, digest in made[1].items() if name not in told
    ]


# -- two runs, other recipes, and the user's own files ----------------------------------------


def test_second_run_on_one_output_is_told_and_leaves(
    corpus: Path, tmp_path: Path, program: Program, undisturbed: dict[str, str]
):
    output = tmp_path / "out"
    pipeline = make_pipeline(corpus / "files", output)
    said: list[tuple[int, str]] = []
    hooks = Hooks(at_start={"export": lambda: said.append(program.run(pipeline))})
    run_pipeline(pipeline, progress=hooks)
    ((code, message),) = said
    assert code == 5
    assert f"process {os.getpid()}" in one_line(message)
    assert str(output) in one_line(message)
    assert tree(output) == undisturbed


def test_runs_on_two_outputs_may_share_a_workspace(
    corpus: Path, tmp_path: Path, program: Program, undisturbed: dict[str, str]
):
    both = [
        program.start(make_pipeline(corpus / "files", tmp_path / name), workspace=tmp_path / "work")
        for name in ("first", "second")
    ]
    for process in both:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    assert tree(tmp_path / "first") == tree(tmp_path / "second") == undisturbed


def test_claim_of_another_host_holds_while_it_is_fresh(corpus: Path, tmp_path: Path):
    output = tmp_path / "out"
    pipeline = make_pipeline(corpus / "files", output)
    run_pipeline(pipeline)
    claim = output / ".pixsieve" / "claim.json"
    owner = dict.fromkeys(("host", "boot", "namespace", "started", "token"), "elsewhere")
    claim.write_text(json.dumps({**owner, "pid": 1}))
    with pytest.raises(BusyError, match="elsewhere"):
        run_pipeline(pipeline)
    old = time.time() - 3600
    os.utime(claim, (old, old))
    run_pipeline(pipeline)
    assert leftovers(output) == []


def test_other_recipe_never_mixes_into_a_dataset(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str]
):
    output = tmp_path / "out"
    run_pipeline(make_pipeline(corpus / "files", output))
    before = times(output)
    with pytest.raises(OutputConflictError, match=r"only here: FilterStage: .*width >= 1"):
        run_pipeline(make_pipeline(corpus / "files", output, where="width >= 1"))
    with pytest.raises(OutputConflictError, match=r"only here: Image.*images_per_tar: 5"):
        run_pipeline(make_pipeline(corpus / "files", output, images_per_tar=5))
    assert tree(output) == undisturbed
    assert times(output) == before


@pytest.mark.parametrize("unit", [2, 4, 6, 8])
def test_other_recipe_after_an_unfinished_run_gives_what_a_fresh_run_gives(
    corpus: Path, tmp_path: Path, unit: int
):
    output = tmp_path / "out"
    stop = Hooks(at_unit={unit: lambda: signal.raise_signal(signal.SIGTERM)})
    with pytest.raises(InterruptedRunError):
        run_pipeline(make_pipeline(corpus / "files", output), progress=stop)
    run_pipeline(make_pipeline(corpus / "files", output, images_per_tar=5))
    run_pipeline(make_pipeline(corpus / "files", tmp_path / "fresh", images_per_tar=5))
    assert tree(output) == tree(tmp_path / "fresh")


def test_a_damaged_manifest_of_a_dataset_that_is_gone_is_in_nobodys_way(
    corpus: Path, tmp_path: Path
):
    output = tmp_path / "out"
    run_pipeline(make_pipeline(corpus / "files", output))
    os.truncate(output / "manifest.json", 100)
    for path in output.glob("*.tar"):
        path.unlink()
    stop = Hooks(at_start={"export": lambda: signal.raise_signal(signal.SIGTERM)})
    with pytest.raises(InterruptedRunError):
        run_pipeline(make_pipeline(corpus / "files", output, images_per_tar=5), progress=stop)
    run_pipeline(make_pipeline(corpus / "files", output, images_per_tar=7))
    run_pipeline(make_pipeline(corpus / "files", tmp_path / "fresh", images_per_tar=7))
    assert tree(output) == tree(tmp_path / "fresh")


@pytest.mark.parametrize(
    "name", ["00000.tar", "table.parquet", "images-000000000000-000000.parquet"]
)
def test_foreign_shards_are_refused_and_left(corpus: Path, tmp_path: Path, name: str):
    output = tmp_path / "out"
    output.mkdir()
    (output / name).write_bytes(b"mine")
    with pytest.raises(OutputConflictError, match=re.escape(name)):
        run_pipeline(make_pipeline(corpus / "files", output))
    assert set(tree(output)) == {name}


@pytest.mark.parametrize("name", ["recipe.yaml", "dropped/dropped.parquet", "manifest.json"])
def test_files_of_the_users_own_are_never_written_over(corpus: Path, tmp_path: Path, name: str):
    output = tmp_path / "out"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_bytes(b"{}")
    with pytest.raises(OutputConflictError, match=name.partition("/")[0]):
        run_pipeline(make_pipeline(corpus / "files", output))
    assert (output / name).read_bytes() == b"{}"


def test_other_files_in_the_output_are_left_as_they_are(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str]
):
    output = tmp_path / "out"
    (output / "deep").mkdir(parents=True)
    own = {
        "notes.txt": b"mine",
        ".hidden.tmp": b"mine",
        ".x.12345.tmp": b"mine",
        "deep/images-000000000000-000000.tar": b"mine",
        "table.csv": b"mine",
    }
    for name, data in own.items():
        (output / name).write_bytes(data)
    before = times(output)
    stop = Hooks(at_start={"account": lambda: signal.raise_signal(signal.SIGTERM)})
    with pytest.raises(InterruptedRunError):
        run_pipeline(make_pipeline(corpus / "files", output, images_per_tar=5), progress=stop)
    run_pipeline(make_pipeline(corpus / "files", output))
    after = times(output)
    assert {name: after[name] for name in own} == before
    assert {n: d for n, d in tree(output).items() if n not in own} == undisturbed


# -- done means checked -----------------------------------------------------------------------


def test_finished_run_touches_nothing(corpus: Path, tmp_path: Path):
    output = tmp_path / "out"
    pipeline = make_pipeline(corpus / "files", output)
    run_pipeline(pipeline)
    before = times(output)
    for _ in range(2):
        result = run_pipeline(pipeline)
        assert result.did_nothing
        assert result.decoded == 0
    shutil.rmtree(output / ".pixsieve")
    assert run_pipeline(pipeline).did_nothing
    assert times(output) == before


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_and_hide(path: Path) -> None:
    """As rot does it: size and times stay."""
    found = path.stat()
    flip(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


DAMAGES = {
    "flipped": flip,
    "rotten": flip_and_hide,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
    "deleted": Path.unlink,
}
VICTIMS = [
    "*-000003.tar",
    "*-000003.parquet",
    "dropped/dropped.parquet",
    "recipe.yaml",
    "manifest.json",
]


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_made_anew(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str], damage: str, victim: str
):
    output = tmp_path / "out"
    pipeline = make_pipeline(corpus / "files", output)
    run_pipeline(pipeline)
    (path,) = output.glob(victim)
    DAMAGES[damage](path)
    assert tree(output) != undisturbed
    before = times(output)
    result = run_pipeline(pipeline)
    assert not result.did_nothing
    assert tree(output) == undisturbed
    others = [name for name in before if name.startswith("images") and path.stem not in name]
    assert all(times(output)[name] == before[name] for name in others)


@pytest.mark.parametrize("victim", VICTIMS[:4])
def test_damaged_file_is_made_anew_without_any_working_state(
    corpus: Path, tmp_path: Path, undisturbed: dict[str, str], victim: str
):
    output = tmp_path / "out"
    pipeline = make_pipeline(corpus / "files", output)
    run_pipeline(pipeline)
    (path,) = output.glob(victim)
    flip(path)
    shutil.rmtree(output / ".pixsieve")
    run_pipeline(pipeline)
    assert tree(output) == undisturbed


def test_lost_manifest_protects_the_dataset_from_other_recipes(
    source: Path, tmp_path: Path, undisturbed: dict[str, str]
):
    output = tmp_path / "out"
    run_pipeline(make_pipeline(source, output))
    (output / "manifest.json").unlink()
    before = tree(output)
    with pytest.raises(OutputConflictError, match="another recipe"):
        run_pipeline(make_pipeline(source, output, where="width >= 1"))
    touched = source / "dogs" / "008.jpg"
    kept = touched.read_bytes()
    touched.write_bytes(images.photo(4711, 128, 96))
    with pytest.raises(OutputConflictError, match="other inputs"):
        run_pipeline(make_pipeline(source, output))
    assert tree(output) == before
    touched.write_bytes(kept)
    run_pipeline(make_pipeline(source, output))
    assert tree(output) == undisturbed


def test_output_that_was_emptied_takes_another_recipe(corpus: Path, tmp_path: Path):
    output = tmp_path / "out"
    run_pipeline(make_pipeline(corpus / "files", output))
    for name in tree(output):
        (output / name).unlink()
    run_pipeline(make_pipeline(corpus / "files", output, images_per_tar=5))
    run_pipeline(make_pipeline(corpus / "files", tmp_path / "fresh", images_per_tar=5))
    assert tree(output) == tree(tmp_path / "fresh")


@pytest.mark.parametrize("folder", ["ledger", "tables", "plans", "spool"])
@pytest.mark.parametrize("damage", ["cut", "emptied", "deleted"])
def test_damaged_working_state_is_made_anew(corpus: Path, tmp_path: Path, folder: str, damage: str):
    output = tmp_path / "out"
    pipeline = make_pipeline(corpus / "tars", output)
    stop = Hooks(at_start={"account": lambda: signal.raise_signal(signal.SIGTERM)})
    with pytest.raises(InterruptedRunError):
        run_pipeline(pipeline, progress=stop)
    for path in [*(output / ".pixsieve" / folder).rglob("*")]:
        if path.is_file():
            DAMAGES[damage](path)
    for path in output.glob("*.tar"):
        path.unlink()
    run_pipeline(pipeline)
    run_pipeline(make_pipeline(corpus / "tars", tmp_path / "fresh"))
    assert tree(output) == tree(tmp_path / "fresh")


def test_temporary_files_of_killed_runs_are_removed(corpus: Path, tmp_path: Path):
    output, work = tmp_path / "out", tmp_path / "work" / ".pixsieve"
    pipeline = make_pipeline(corpus / "files", output)
    run_pipeline(pipeline, workspace=work.parent)
    (plans,) = (path for path in (work / "plans").iterdir() if path.is_dir())
    old = [
        output / ".a.tar.0123abcd.tmp",
        plans / ".b.parquet.0123abcd.tmp",
        work / "tables/.c.parquet.89abcdef.tmp",
    ]
    young = work / "tables" / ".d.parquet.89abcdef.tmp"
    others = output / ".notes.0123abcd.tmp"
    for path in (*old, young, others):
        path.write_bytes(b"")
    for path in (*old, others):
        os.utime(path, (TIME, TIME))
    run_pipeline(pipeline, workspace=work.parent)
    assert not any(path.exists() for path in old)
    assert young.exists()  # another run may be writing it
    assert others.exists()  # whatever it is, no run wrote it
