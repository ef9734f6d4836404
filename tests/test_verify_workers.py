"""Verify's worker processes: none outlives it, none ends it, and a signal is obeyed at once."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pixsieve.engine.local import LocalExecutor
from pixsieve.engine.units import Context
from pixsieve.errors import UsageError
from pixsieve.schema import Problem
from pixsieve.scorers.guard import NoGuard
from pixsieve.testing.faults import processes, wait_until
from pixsieve.testing.images import photo
from pixsieve.verify import verify
from pixsieve.verify.shard import ShardTask, check_shard

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = f"verify-{os.getpid()}"
STOP_SECONDS = 10.0


def slow_jpeg(scans: int, side: int = 8192) -> bytes:
    """A sound JPEG of 200 kB or more whose ``scans`` repeat each other: 6 ms for 65 bytes."""

    def segment(marker: int, body: bytes) -> bytes:
        return bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body

    blocks = (side // 8) ** 2
    frame = bytes([8, *side.to_bytes(2, "big"), *side.to_bytes(2, "big"), 1, 1, 0x11, 0])
    one_code = bytes([1, *bytes(15)])
    runs = -(-blocks // 32767)
    lengths = [blocks // runs + (run < blocks % runs) for run in range(runs)]
    bits = "".join(f"0{length - 16384:014b}" for length in lengths)
    bits += "1" * (-len(bits) % 8)
    coded = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, bytes([0, *[1] * 64])),
            segment(0xC2, frame),
            segment(0xC4, bytes([0x00, *one_code, 0x00])),
            segment(0xC4, bytes([0x10, *one_code, 0xE0])),
            segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(blocks // 8),
            (segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + coded) * scans,
            b"\xff\xd9",
        ]
    )


def write(path: Path, content: dict[str, bytes]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def photos(prefix: str) -> dict[str, bytes]:
    return {f"{prefix}{n}.jpg": photo(n) for n in range(3)}


@pytest.fixture(params=["verify"])
def busy(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose two workers are at images that take minutes."""
    image = slow_jpeg(16_000)
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.tar", {f"{name}.jpg": image})
    folders = [
        str(tmp_path / "in"),
        *([str(tmp_path / "out")] if request.param == "export" else []),
    ]
    with start(request.param, *folders, "--workers", "2") as process:
        assert wait_until(lambda: len(busy_workers(process.pid)) == 2, 30), "they have not started"
        yield process


@contextlib.contextmanager
def start(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pixsieve", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PIXSIEVE_TEST_RUN": MARK},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
            for left in running():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(left, signal.SIGKILL)


def running() -> list[int]:
    return processes(f"PIXSIEVE_TEST_RUN={MARK}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_processes_with_its_code(
    busy: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    busy.send_signal(number)
    said = busy.communicate(timeout=STOP_SECONDS)  # ends when no process has the pipes any more
    assert busy.returncode == 128 + number
    assert said == (b"", f"pixsieve: stopped by {number.name}; the dataset is as it was\n".encode())
    assert wait_until(lambda: not running(), 1)


@pytest.mark.parametrize("busy", ["verify", "export"], indirect=True)
def test_no_busy_worker_outlives_a_command_that_is_killed(busy: subprocess.Popen[bytes]) -> None:
    busy.kill()
    busy.communicate(timeout=STOP_SECONDS)
    assert wait_until(lambda: not running(), 1)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_takes_too_long_is_a_finding_and_the_rest_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    impatient = functools.partial(LocalExecutor, sample_cpu_seconds=0.5)
    monkeypatch.setattr("pixsieve.verify.run.LocalExecutor", impatient)
    write(tmp_path / "a.tar", {**photos("a"), "slow.jpg": slow_jpeg(1_000), **photos("b")})
    write(tmp_path / "b.tar", photos("c"))
    report = verify(tmp_path, workers=workers)
    (finding,) = report.findings
    assert (finding.severity, finding.rule) == ("error", "image-undecodable")
    assert (finding.file, finding.member) == ("a.tar", "slow.jpg")
    assert finding.message == "decode_timeout: it ended a worker process"
    assert (report.checked.samples, report.checked.decoded) == (10, 9)


def busy_workers(parent: int) -> list[int]:
    """The workers of a verify, below its fork server, that have computed for a second."""
    found = []
    for each in running():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stat = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            above = Path(f"/proc/{stat[1]}/stat").read_text().rpartition(")")[2].split()
            if int(above[1]) == parent and int(stat[11]) > os.sysconf("SC_CLK_TCK"):
                found.append(each)
    return found


def test_an_image_that_ends_its_worker_twice_is_a_finding_and_the_rest_is_checked(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.tar", {**photos("a"), "slow.jpg": slow_jpeg(16_000), **photos("b")})
    with start("verify", str(tmp_path), "--workers", "1", "--json") as process:
        for _ in range(2):
            assert wait_until(lambda: bool(busy_workers(process.pid)), 30)
            os.kill(busy_workers(process.pid)[0], signal.SIGSEGV)
        report = json.loads(process.communicate(timeout=30)[0])
    (finding,) = report["findings"]
    assert (finding["rule"], finding["file"]) == ("image-undecodable", "a.tar")
    assert finding["member"] == "slow.jpg"
    assert finding["message"] == "decoder_crash: it ended a worker process"
    assert report["checked"]["decoded"] == 6


def test_an_image_that_ended_its_worker_is_not_decoded_again(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", photos("a"))
    with tarfile.open(tmp_path / "a.tar") as tar:
        offset = tar.getmember("a1.jpg").offset_data
    task = ShardTask(folder=str(tmp_path), tar="a.tar", sidecar=None, own=False)
    guard = NoGuard({offset: Problem.DECODER_CRASH})
    result = check_shard(task, Context(guard=guard))
    (finding,) = result.findings
    assert (finding.rule, finding.member) == ("image-undecodable", "a1.jpg")
    assert result.checked.decoded == 2


def test_the_number_of_workers_is_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers is -1"):
        verify(tmp_path, workers=-1)
