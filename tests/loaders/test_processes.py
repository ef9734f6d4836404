"""A loader's process: what it sends, how it may end, and what is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pixsieve.loaders import processes
from pixsieve.loaders.base import Folder, How
from pixsieve.loaders.child import Task
from pixsieve.loaders.processes import LoaderFailedError, running

FOLDER = Folder(
    path="/", tars=(), sidecars=(), images=("jpg",), captions=True, samples=0, scratch=""
)
TASK = Task(loader="webdataset", folder=FOLDER, how=How(workers=2), seconds=1.5)


@pytest.fixture
def python(tmp_path):
    """Makes an interpreter that runs given lines instead of a loader; ``send`` is there."""

    def make(*lines: str) -> str:
        path = tmp_path / "python"
        start = [
            f"#!{sys.executable}",
            "import json, os, sys",
            "def send(kind, value):",
            "    os.write(int(sys.argv[3]), json.dumps([kind, value]).encode() + b'\\n')",
        ]
        path.write_text("\n".join([*start, *lines, ""]))
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def read(python):
    with running(TASK, python) as messages:
        return list(messages)


def test_a_task_survives_the_way_to_its_process():
    assert Task.from_json(TASK.to_json()) == TASK


def test_messages_come_up_to_the_last(python):
    program = python("send('version', '1')", "send('done', 3)", "send('done', 4)")
    assert read(program) == [("version", "1"), ("done", 3)]


def test_it_has_a_home_of_its_own_that_goes(python):
    program = python(
        "names = ('HOME', 'TMPDIR', 'HF_HOME', 'HF_HUB_OFFLINE', 'HF_TOKEN')",
        "open('left.txt', 'w').close()",
        "task = json.load(open(sys.argv[4]))",
        "found = [os.environ.get(name) for name in names]",
        "send('done', [os.getcwd(), task['folder']['scratch'], *found])",
    )
    os.environ["HF_TOKEN"] = "a secret of the user's"  # noqa: S105
    try:
        ((_, (cwd, scratch, home, tmpdir, hf, offline, token)),) = read(program)
    finally:
        del os.environ["HF_TOKEN"]
    assert cwd == scratch == home == tmpdir
    assert hf.startswith(f"{home}/")
    assert offline == "1"
    assert token is None
    assert not Path(home).exists()


def test_what_it_raises_is_told(python):
    with pytest.raises(LoaderFailedError, match=r"^ValueError: no$"):
        read(python("send('failed', 'ValueError: no')"))


def test_an_early_end_is_told_with_its_last_words(python):
    program = python("print('one'); print('two', file=sys.stderr)", "sys.exit(3)")
    with pytest.raises(LoaderFailedError, match=r"exit code 3 before it was done; it said: .*two"):
        read(program)


def test_a_crash_is_told(python):
    with pytest.raises(LoaderFailedError, match=r"was ended by SIGSEGV before it was done"):
        read(python("os.kill(os.getpid(), 11)"))


def test_an_interpreter_that_is_not_there_is_told(tmp_path):
    with pytest.raises(LoaderFailedError, match="cannot start"):
        read(str(tmp_path / "none"))


def test_one_that_gives_nothing_is_ended(python, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STALL", 0.3)
    monkeypatch.setattr(processes, "_GRACE", 0.2)
    program = python(
        "import signal, time",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))",
        "send('version', '1')",
        "time.sleep(600)",
    )
    with pytest.raises(LoaderFailedError, match=r"gave nothing for 0 seconds, and was ended"):
        read(program)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are found in /proc")
def test_what_it_started_is_ended_even_in_a_session_of_its_own(python):
    program = python(
        "import subprocess",
        "other = subprocess.Popen(['sleep', '600'], start_new_session=True)",
        "send('done', other.pid)",
    )
    ((_, pid),) = read(program)
    deadline = time.monotonic() + 10  # one that is killed takes a moment
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not is_alive(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_loader_too(number, small):
    process = subprocess.Popen(
        [sys.executable, "-m", "pixsieve", "bench", str(small), "--loader", "polars",
         "--seconds", "600"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not left(str(small)) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert said.splitlines()[-1].startswith("pixsieve: stopped by SIG")
    assert not left(str(small))


def test_a_loader_does_not_outlive_one_who_is_killed(small):
    process = subprocess.Popen(
        [sys.executable, "-m", "pixsieve", "bench", str(small), "--loader", "polars",
         "--seconds", "600"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not left(str(small)) and time.monotonic() < deadline:
        time.sleep(0.05)
    (child,) = left(str(small))
    home = Path(f"/proc/{child}/cwd").readlink()
    process.kill()
    process.wait(60)
    while (is_alive(child) or home.exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)
    assert not home.exists()


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def left(word: str) -> list[int]:
    """Return the processes of loaders that have a word in their task."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            arguments = path.read_bytes().decode(errors="replace").split("\0")
            if "pixsieve.loaders.child" in arguments:
                task = Path(arguments[arguments.index("pixsieve.loaders.child") + 2])
                if word in task.read_text(encoding="utf-8"):
                    found.append(int(path.parent.name))
    return found


def test_environment_leaves_json_untouched():
    found = processes.environment("/scratch")
    assert json.loads(json.dumps(found)) == found
    assert found["TMPDIR"] == "/scratch"
