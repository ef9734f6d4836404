"""One run works on an output; claims of the dead never block, and no two ever win."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import msgspec
import pytest

from pixsieve.engine import claim as claim_module
from pixsieve.engine.claim import STALE_SECONDS, Owner, claim
from pixsieve.errors import BusyError, StorageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "out" / ".pixsieve"
    path.mkdir(parents=True)
    return path


def owner(**changes: object) -> bytes:
    """An owner that lives, unless changed."""
    return msgspec.json.encode({**asdict(claim_module._me()), **changes})


def test_a_claim_is_held_and_given_back(folder: Path):
    for _ in range(2):
        with claim(folder):
            held = msgspec.json.decode((folder / "claim.json").read_bytes(), type=Owner)
            assert held.pid == os.getpid()
            message = f"out is being worked on by process {os.getpid()} on "
            with pytest.raises(BusyError, match=message), claim(folder):
                pytest.fail("two hold it")
        assert list(folder.iterdir()) == []


def test_a_claim_is_given_back_after_a_failure(folder: Path):
    with pytest.raises(KeyError), claim(folder):
        raise KeyError
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("attempt", range(5))
def test_exactly_one_of_many_wins(folder: Path, attempt: int):
    if attempt % 2:  # over a claim of the dead, which all of them find
        (folder / "claim.json").write_bytes(owner(pid=2**22 - 1))
    start, finish = threading.Barrier(20), threading.Event()
    won, lost = [], []

    def run(number: int) -> None:
        start.wait()
        try:
            with claim(folder):
                won.append(number)
                finish.wait()
        except BusyError:
            lost.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(won) + len(lost) < 20 and time.monotonic() < deadline:
        time.sleep(0.01)
    finish.set()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 19)
    assert list(folder.iterdir()) == []


HOLD = """
import sys, time
from pathlib import Path
from pixsieve.engine.claim import claim
from pixsieve.errors import BusyError
print("ready", flush=True)
sys.stdin.readline()
try:
    with claim(Path(sys.argv[1])):
        print("won", flush=True)
        sys.stdin.readline()
except BusyError:
    print("lost", flush=True)
"""


def start(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    return process


def tell(process: subprocess.Popen[str]) -> None:
    process.stdin.write("go\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_one_of_several_processes_wins_and_the_next_after_its_death(folder: Path):
    processes = [start(folder) for _ in range(4)]
    try:
        for process in processes:
            tell(process)
        answers = [process.stdout.readline().strip() for process in processes]
        assert sorted(answers) == ["lost"] * 3 + ["won"]
        winner = processes[answers.index("won")]
        with pytest.raises(BusyError, match=f"process {winner.pid} on "), claim(folder):
            pytest.fail("two hold it")
        winner.kill()
        winner.wait()
        with claim(folder):  # at once
            pass
        assert list(folder.iterdir()) == []  # nor is anything of the dead left
    finally:
        for process in processes:
            end(process)


@pytest.mark.parametrize(
    "changes", [{"started": "1"}, {"pid": 2**22 - 1}], ids=["the number was given again", "gone"]
)
def test_a_claim_of_the_dead_of_this_machine_never_blocks(folder: Path, changes: dict[str, object]):
    (folder / "claim.json").write_bytes(owner(**changes))
    with claim(folder):
        assert (
            msgspec.json.decode((folder / "claim.json").read_bytes(), type=Owner).pid == os.getpid()
        )


@pytest.mark.parametrize(
    "changes", [{"host": "elsewhere"}, {"boot": "x"}, {"namespace": "pid:[1]"}]
)
def test_a_claim_of_elsewhere_counts_by_its_heartbeat(folder: Path, changes: dict[str, object]):
    path = folder / "claim.json"
    path.write_bytes(owner(pid=1, **changes))
    with pytest.raises(BusyError), claim(folder):
        pytest.fail("two hold it")
    old = time.time() - STALE_SECONDS - 5
    os.utime(path, (old, old))
    with claim(folder):
        assert msgspec.json.decode(path.read_bytes(), type=Owner).pid == os.getpid()


def test_an_unreadable_claim_counts_by_its_age(folder: Path):
    """As after a power cut, or while a mount without links is being written to."""
    path = folder / "claim.json"
    path.write_bytes(b"")
    with pytest.raises(BusyError), claim(folder):
        pytest.fail("it may be new")
    old = time.time() - STALE_SECONDS - 5
    os.utime(path, (old, old))
    with claim(folder):
        pass


def test_a_claim_is_touched_while_it_is_held(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(claim_module, "HEARTBEAT_SECONDS", 0.02)
    with claim(folder):
        path = folder / "claim.json"
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime < 10


def test_another_runs_claim_is_not_removed_at_the_end(folder: Path):
    path = folder / "claim.json"
    with claim(folder):
        path.unlink()
        path.write_bytes(owner(host="elsewhere"))
    assert msgspec.json.decode(path.read_bytes(), type=Owner).host == "elsewhere"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(StorageError, match="missing"), claim(tmp_path / "missing"):
        pytest.fail("there is no folder")
