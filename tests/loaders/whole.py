"""Whole samples as loaders give them by default, all members decoded, one library per process.

Run as a program with a loader's name and a folder, it prints a line of JSON for each sample: its
key and its members by extension. An image is told as its size, or by its bytes' number where it is
not decoded; text and json as they come; anything else by its type. What the library raises is a
line ``["!", message]``.
"""

# ruff: noqa: PLC0415, T201  # a library is imported by its own process, which prints

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = ("jpg", "png", "webp", "gif", "bmp", "tif", "avif")


def read(loader: str, folder: Path, *, timeout: float = 240) -> tuple[list[Any], str | None]:
    """Return all samples that a loader gives in a process of its own, and what it raised."""
    with tempfile.TemporaryDirectory(prefix="whole-") as home:
        environment = {
            **os.environ, "HOME": home, "TMPDIR": home, "HF_HOME": home, "HF_HUB_OFFLINE": "1",
            "DAFT_PROGRESS_BAR": "0", "RAY_USAGE_STATS_ENABLED": "0", "DO_NOT_TRACK": "1",
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, __file__, loader, str(folder)],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment,
            cwd=home,
        )
    found = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@[")]
    error = next((value for name, value in found if name == "!"), None)
    if done.returncode and error is None:
        error = f"exit code {done.returncode}: {done.stderr[-2000:]}"
    return [each for each in found if each[0] != "!"], error


Row = tuple[str, dict[str, Any]]
"""Key, and members by extension."""


def webdataset(folder: Path) -> Iterator[Row]:
    import webdataset as wds

    found = wds.WebDataset(_tars(folder), shardshuffle=False).decode("pil")
    for sample in found:
        yield sample["__key__"], {k: v for k, v in sample.items() if k[0] != "_"}


def wids(folder: Path) -> Iterator[Row]:
    import wids

    cache = Path.cwd() / "wids"
    cache.mkdir()
    for name in _tars(folder):
        (cache / Path(name).name).symlink_to(name)
    found = wids.ShardListDataset(str(folder / "wids.json"), cache_dir=str(cache))
    for number in range(len(found)):
        sample = found[number]
        yield sample["__key__"], {k[1:]: v for k, v in sample.items() if k[0] == "."}


def hf(folder: Path) -> Iterator[Row]:
    import datasets

    yield from _hf(datasets.load_dataset(str(folder)))


def hf_bare(folder: Path) -> Iterator[Row]:
    """The tars alone, as where there is no card: columns and types are guessed."""
    import datasets

    yield from _hf(datasets.load_dataset("webdataset", data_files={"train": _tars(folder)}))


def _hf(parts: Any) -> Iterator[Row]:
    for part in parts.values():
        for row in part:
            yield row["__key__"], {k: v for k, v in row.items() if k[0] != "_"}


def energon(folder: Path) -> Iterator[Row]:
    from megatron import energon

    found = energon.get_val_dataset(
        str(folder),
        split_part="train",
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        task_encoder=energon.DefaultTaskEncoder(),
    )
    for sample in energon.get_loader(found):
        caption = getattr(sample, "caption", None)
        key = str(sample.__key__).rpartition("/")[2]
        yield key, {"image": tuple(sample.image.shape), **({"txt": caption} if caption else {})}


def dali(folder: Path) -> Iterator[Row]:
    from nvidia.dali import fn, pipeline_def

    tars = _tars(folder)
    texts = any("txt " in Path(f"{name[:-4]}.idx").read_text() for name in tars)

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def pipeline() -> Any:
        found = fn.readers.webdataset(
            name="reader",
            paths=tars,
            index_paths=[f"{name[:-4]}.idx" for name in tars],
            ext=[";".join(IMAGES), *(["txt"] if texts else [])],
        )
        parts = found if isinstance(found, (list, tuple)) else [found]
        return fn.decoders.image(parts[0]), fn.get_property(parts[0], key="source_info"), *parts[1:]

    running = pipeline()
    running.build()
    for _ in range(int(running.reader_meta("reader")["epoch_size"])):
        image, name, *more = running.run()
        key = bytes(name.at(0)).decode().rpartition(":")[2].partition(".")[0]
        text = {"txt": bytes(more[0].at(0)).decode()} if more else {}
        yield key, {"image": image.at(0).shape, **text}


def ray(folder: Path) -> Iterator[Row]:
    import ray

    ray.init(
        num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False,
        object_store_memory=128 * 1024 * 1024,
    )  # fmt: skip
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    for row in ray.data.read_webdataset(_tars(folder)).iter_rows():
        yield row["__key__"], {k: v for k, v in row.items() if k[0] != "_"}


def daft(folder: Path) -> Iterator[Row]:
    import daft

    for tar in _tars(folder):
        for row in daft.read_webdataset(tar).iter_rows():
            yield row["__key__"], {k: v for k, v in row.items() if k[0] != "_"}


def _tars(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.glob("*.tar"))]


LOADERS = {
    each.__name__: each for each in (webdataset, wids, hf, hf_bare, energon, dali, ray, daft)
}


def _told(name: str, value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if name == "json" and isinstance(value, (dict, list)):
        return value
    if hasattr(value, "size") and hasattr(value, "load"):
        value.load()
        return list(value.size)
    if hasattr(value, "shape"):
        return list(value.shape)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, io.BytesIO):
        value = value.getvalue()
    return f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__


def _main(loader: str, folder: str) -> None:
    try:
        for key, members in LOADERS[loader](Path(folder)):
            told = {name: _told(name, value) for name, value in members.items()}
            print("@" + json.dumps([key, told], default=str), flush=True)
    except BaseException as error:  # noqa: BLE001  # whatever a library raises is a result
        print("@" + json.dumps(["!", f"{type(error).__name__}: {error}"]), flush=True)
    sys.stdout.flush()
    os._exit(0)  # some leave threads that do not end


if __name__ == "__main__":
    _main(*sys.argv[1:])
