"""Curates real photographs with the commands that a user would type, and checks the outcome.

    python examples/demo.py FOLDER

Makes ``FOLDER/photos``, runs ``demo.yaml`` over it, shows what became of the files, verifies the
dataset, asks about three of them, and puts the kept pictures on one sheet, ``FOLDER/kept.png``.
"""

# ruff: noqa: INP001 - scripts, not a package
from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import demo_photos
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps
from rich.console import Console

_TILE = 200  # pixels
_COLUMNS = 6

_console = Console(highlight=False)


def main(folder: Path) -> None:
    """Run the demo in ``folder``."""
    output = folder / "out"
    shutil.rmtree(output, ignore_errors=True)
    fates = demo_photos.make(folder / "photos", demo_photos.originals())
    shutil.copy(Path(__file__).with_name("demo.yaml"), folder)

    _pixsieve("run", str(folder / "demo.yaml"), "--max-failed", "0.5")
    kept = pa.concat_tables(pq.read_table(path) for path in sorted(output.glob("images-*.parquet")))
    dropped = pq.read_table(output / "dropped" / "dropped.parquet")
    _check(fates, kept, dropped)

    _pixsieve("verify", str(output))
    _pixsieve("why", str(output), _key(dropped, "downloads/china (1).jpg"))
    _pixsieve("why", str(output), _key(dropped, "downloads/hubble_small.jpg"))
    _pixsieve("why", str(output), _key(kept, "places/china.jpg"))

    sheet = folder / "kept.png"
    _sheet(output, kept).save(sheet)
    _console.print(f"\n[bold]look at[/bold] {sheet}", soft_wrap=True)


def _pixsieve(*arguments: str) -> None:
    """Run one command as a user would; it must succeed."""
    command = ["pixsieve", *arguments]
    _console.print(f"\n[bold]$ {shlex.join(command)}[/bold]", soft_wrap=True)
    beside = Path(sys.executable).with_name("pixsieve")
    ended = subprocess.run([str(beside), *arguments], check=False)  # noqa: S603 - our own command
    if ended.returncode:
        raise SystemExit(f"exit code {ended.returncode}")


def _check(fates: dict[str, str], kept: pa.Table, dropped: pa.Table) -> None:
    """Stop unless every file met the fate that it was made for."""
    found = dict.fromkeys(kept["original_path"].to_pylist(), demo_photos.KEPT)
    found |= dict(
        zip(dropped["original_path"].to_pylist(), dropped["reason"].to_pylist(), strict=True)
    )
    wrong = [
        f"{path}: expected {fates.get(path)}, found {found.get(path)}"
        for path in sorted(fates.keys() | found.keys())
        if fates.get(path) != found.get(path)
    ]
    if wrong:
        raise SystemExit("\n".join(["files that did not fare as expected:", *wrong]))
    fared = ", ".join(f"{count} {fate}" for fate, count in Counter(fates.values()).most_common())
    _console.print(f"\nevery file fared as expected: {fared}", soft_wrap=True)


def _key(table: pa.Table, path: str) -> str:
    """Return the image_id of the sample whose image lies at ``path``."""
    row = table["original_path"].to_pylist().index(path)
    return str(table["image_id"][row].as_py())


def _sheet(output: Path, kept: pa.Table) -> Image.Image:
    """Put the kept pictures side by side; the sidecar tells where in the tars their bytes are."""
    line = 14
    font = ImageFont.load_default(11)
    rows = -(-len(kept) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, rows * (_TILE + 2 * line)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, sample in enumerate(kept.to_pylist()):
        with (output / sample["tar_file"]).open("rb") as tar:
            tar.seek(sample["member_offset"])
            data = tar.read(sample["member_size"])
        picture = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        tile = ImageOps.pad(picture, (_TILE - 8, _TILE - 8), color="white")
        left, top = number % _COLUMNS * _TILE, number // _COLUMNS * (_TILE + 2 * line)
        sheet.paste(tile, (left + 4, top + 4))
        how = sample["encoding"].partition(" ")[0]
        size = f"{sample['width']} x {sample['height']}, {how}"
        for row, text in enumerate((sample["original_path"], size)):
            draw.text((left + 4, top + _TILE + row * line), text, "black", font)
    return sheet


if __name__ == "__main__":
    if len(sys.argv) != 2:  # noqa: PLR2004 - the program and the folder
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
