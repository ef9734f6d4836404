"""Faults to plant in a sound export, each with the rule by which ``verify`` must name it.

Each is planted in a copy of a folder, and can be hidden from the manifest's digests with
:func:`agree`, as somebody would who changes a dataset on purpose or makes its manifest anew.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sqlite3
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pixsieve.export.indexes import INDEXES
from pixsieve.pipeline import Pipeline
from pixsieve.stages import (
    ExactDeduplicationStage,
    ImageReaderStage,
    ImageWriterStage,
    SplitStage,
)
from pixsieve.testing import images
from pixsieve.testing.corpus import run_pipeline, write_files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pixsieve.stage import Stage

SAMPLES = 12
PER_TAR = 4
MANIFEST = "manifest.json"

Members = list[tuple[str, bytes]]


def export(
    folder: Path,
    *,
    splits: bool = False,
    kinds: Sequence[str] = ("JPEG",),
    captions: bool = True,
    transform: Stage | None = None,
    **writer: Any,
) -> Path:
    """Make a sound export of 12 samples in 3 shards, with captions and json, and all index files.

    One more sample is dropped, and one is failed.

    Args:
        folder: Where source and dataset go.
        splits: Whether there are two splits.
        kinds: Formats of the images, in turn.
        captions: Whether there are captions.
        transform: What is done to the images.
        writer: Options of the writer.
    """
    files: dict[str, bytes] = {}
    for number in range(SAMPLES):
        kind = kinds[number % len(kinds)]
        suffix = "jpg" if kind == "JPEG" else kind.lower()
        files[f"{number:03d}.{suffix}"] = images.photo(number, 120 + number, 96, kind)
        if captions:
            files[f"{number:03d}.txt"] = f"a caption, numéro {number}".encode()
        files[f"{number:03d}.json"] = json.dumps({"number": number}).encode()
    files["copy.jpg"] = next(iter(files.values()))
    files["torn.jpg"] = images.truncated(images.photo(500, 200, 160))
    write_files(folder / "in", files)
    pipeline = Pipeline(name="planted").add_stage(
        ImageReaderStage(str(folder / "in"), json_fields={"number": "int64"})
    )
    pipeline.add_stage(ExactDeduplicationStage())
    if splits:
        pipeline.add_stage(SplitStage({"train": 0.75, "val": 0.25}, exact=True))
    out = folder / "out"
    if transform is not None:
        pipeline.add_stage(transform)
    writer = {"images_per_tar": PER_TAR, "indexes": tuple(INDEXES), **writer}
    run_pipeline(pipeline.add_stage(ImageWriterStage(output_dir=str(out), **writer)))
    return out


# -- changing files ---------------------------------------------------------------------------


def shards(folder: Path) -> list[Path]:
    """Return the tars at the root."""
    return sorted(folder.glob("*.tar"))


def read_tar(path: Path) -> Members:
    """Return the names and the bytes of a tar's members."""
    with tarfile.open(path) as tar:
        found = []
        for info in tar:
            file = tar.extractfile(info)
            found.append((info.name, file.read() if file else b""))
        return found


def write_tar(
    path: Path,
    members: Members,
    kind: int = tarfile.USTAR_FORMAT,
    shape: Callable[[tarfile.TarInfo], None] = lambda _: None,
) -> None:
    """Write a tar as pixsieve does, unless ``kind`` or ``shape`` make it another."""
    with tarfile.open(path, "w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shape(info)
            tar.addfile(info, io.BytesIO(data))


def edit_tar(folder: Path, change: Callable[[Members], Members | None], shard: int = 1) -> None:
    """Change the members of a shard; its sidecar stays as it is, but for where they lie."""
    path = shards(folder)[shard]
    members = read_tar(path)
    write_tar(path, change(members) or members)
    place(folder, shard)


def edit_rows(
    folder: Path,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]] | None],
    shard: int = 1,
) -> None:
    """Change the rows of a shard's sidecar."""
    path = shards(folder)[shard].with_suffix(".parquet")
    table = pq.read_table(path)
    rows = table.to_pylist()
    changed = pa.Table.from_pylist(change(rows) or rows, table.schema)
    if not changed.equals(table):
        pq.write_table(changed, path)


def place(folder: Path, shard: int) -> None:
    """Let a sidecar tell where the members lie now, so that only what was planted is wrong."""
    places: dict[str, tuple[int, int]] = {}
    with tarfile.open(shards(folder)[shard]) as tar:
        for info in tar:
            places.setdefault(info.name, (info.offset_data, info.size))

    def moved(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["member_name"] in places:
                row["member_offset"], row["member_size"] = places[row["member_name"]]
            if all(name in places for name in row["members"]):
                row["member_sizes"] = [places[name][1] for name in row["members"]]

    edit_rows(folder, moved, shard)


def rename(
    folder: Path, names: Callable[[str], str], shard: int = 1, kind: int = tarfile.USTAR_FORMAT
) -> None:
    """Rename members in the tar and in its sidecar alike."""
    path = shards(folder)[shard]
    write_tar(path, [(names(name), data) for name, data in read_tar(path)], kind)

    def renamed(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["members"] = [names(name) for name in row["members"]]
            row["member_name"] = names(row["member_name"])
            row["key"] = row["member_name"].partition(".")[0]

    edit_rows(folder, renamed, shard)
    place(folder, shard)


def write_manifest(folder: Path, fields: dict[str, Any]) -> None:
    """Write a manifest with the digest of its other lines."""
    rest = {name: value for name, value in fields.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    full = {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    text = json.dumps(full, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
    (folder / MANIFEST).write_bytes(text.encode())


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest; it keeps a right digest of itself."""
    fields = json.loads((folder / MANIFEST).read_bytes())
    change(fields)
    write_manifest(folder, fields)


def agree(folder: Path) -> None:
    """Let the manifest state the files as they are: sizes, digests, and which there are.

    Names of shards follow a tar that was renamed; all counts stay.
    """
    if not (folder / MANIFEST).is_file():
        return

    def stated(fields: dict[str, Any]) -> None:
        there = {each["name"] for each in fields["files"] if (folder / each["name"]).is_file()}
        strangers = {path.name for path in folder.glob("*") if path.suffix in (".tar", ".parquet")}
        fields["files"] = [
            {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name in sorted(there | strangers)
            for data in [(folder / name).read_bytes()]
        ]
        unknown = sorted(strangers - there)
        for shard in fields["shards"]:
            for kind, suffix in (("tar", ".tar"), ("sidecar", ".parquet")):
                if shard[kind] not in there:
                    other = [name for name in unknown if name.endswith(suffix)]
                    shard[kind] = other[0] if other else shard[kind]

    edit_manifest(folder, stated)


# -- the faults -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that can be planted.

    Attributes:
        name: What is wrong.
        rule: The rule that must name it.
        plant: Puts it into a folder.
        splits: Whether the export has splits.
        file: The file that is named: how its name starts; ``{shard}`` is that of the second shard.
        agreed: The rule that must name it if the manifest agrees; ``None`` for the same one, and
            ``""`` where the manifest cannot agree.
    """

    name: str
    rule: str
    plant: Callable[[Path], None]
    splits: bool = False
    file: str = "{shard}"
    agreed: str | None = None


FAULTS: dict[str, Fault] = {}


def _fault(
    rule: str, **expected: Any
) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def register(plant: Callable[[Path], None]) -> Callable[[Path], None]:
        name = plant.__name__.strip("_")
        FAULTS[name] = Fault(name=name, rule=rule, plant=plant, **expected)
        return plant

    return register


def _set(
    row: int, column: str, value: Callable[[Any], Any]
) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[row][column] = value(rows[row][column])

    return change


# rows


@_fault("sidecar-row-missing")
def _row_missing(folder: Path) -> None:
    edit_rows(folder, lambda rows: rows[:1] + rows[2:])


@_fault("sidecar-row-duplicate")
def _row_twice(folder: Path) -> None:
    edit_rows(folder, lambda rows: [*rows, rows[1]])


@_fault("sidecar-order")
def _rows_in_another_order(folder: Path) -> None:
    edit_rows(folder, lambda rows: rows[::-1])


@_fault("column-size")
def _width_off_by_one(folder: Path) -> None:
    edit_rows(folder, _set(1, "width", lambda width: width + 1))


@_fault("column-member-offset")
def _member_offset_off_by_one(folder: Path) -> None:
    edit_rows(folder, _set(1, "member_offset", lambda offset: offset + 1))


@_fault("column-member-size")
def _member_size_off_by_one(folder: Path) -> None:
    edit_rows(folder, _set(1, "member_size", lambda size: size - 1))


@_fault("column-member-sizes")
def _size_of_a_caption_off_by_one(folder: Path) -> None:
    edit_rows(folder, _set(1, "member_sizes", lambda sizes: [sizes[0], sizes[1] + 1, *sizes[2:]]))


@_fault("column-sha256")
def _sha256_wrong(folder: Path) -> None:
    edit_rows(folder, _set(1, "sha256", lambda digest: digest[::-1]))


@_fault("column-caption")
def _captions_swapped_in_the_sidecar(folder: Path) -> None:
    def swap(rows: list[dict[str, Any]]) -> None:
        rows[0]["caption"], rows[1]["caption"] = rows[1]["caption"], rows[0]["caption"]

    edit_rows(folder, swap)


@_fault("column-split", splits=True)
def _split_of_another(folder: Path) -> None:
    edit_rows(folder, _set(1, "split", lambda _: "val"))


def _with_column(folder: Path, column: pa.Array, name: str) -> None:
    path = shards(folder)[1].with_suffix(".parquet")
    table = pq.read_table(path)
    pq.write_table(table.append_column(name, column), path)


@_fault("sidecar-schema")
def _a_column_of_type_null(folder: Path) -> None:
    _with_column(folder, pa.nulls(PER_TAR), "score")


@_fault("sidecar-schema-differs")
def _a_column_more_in_one_sidecar(folder: Path) -> None:
    _with_column(folder, pa.array([0.5] * PER_TAR), "score")


@_fault("sidecar-schema")
def _a_column_less_in_one_sidecar(folder: Path) -> None:
    path = shards(folder)[1].with_suffix(".parquet")
    pq.write_table(pq.read_table(path).drop_columns(["width"]), path)


@_fault("file-missing", agreed="manifest-name")
def _sidecar_missing(folder: Path) -> None:
    shards(folder)[1].with_suffix(".parquet").unlink()


@_fault("sidecar-unreadable")
def _sidecar_cut(folder: Path) -> None:
    path = shards(folder)[1].with_suffix(".parquet")
    path.write_bytes(path.read_bytes()[:-200])


# tars


def borders(path: Path) -> list[int]:
    """Return where the headers of a tar's members start."""
    with tarfile.open(path) as tar:
        return [info.offset for info in tar]


@_fault("sidecar-row-extra")
def _tar_cut_between_samples(folder: Path) -> None:
    path = shards(folder)[1]
    path.write_bytes(path.read_bytes()[: borders(path)[6]])


@_fault("tar-cut")
def _tar_cut_inside_a_member(folder: Path) -> None:
    path = shards(folder)[1]
    path.write_bytes(path.read_bytes()[: borders(path)[6] + 512 + 1000])


@_fault("tar-no-end")
def _no_end_blocks(folder: Path) -> None:
    path = shards(folder)[1]
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512
    path.write_bytes(path.read_bytes()[:end])


@_fault("tar-trailing-data")
def _garbage_after_the_end(folder: Path) -> None:
    path = shards(folder)[1]
    path.write_bytes(path.read_bytes() + b"garbage!" * 128)


@_fault("tar-damaged")
def _a_header_damaged(folder: Path) -> None:
    path = shards(folder)[1]
    data = bytearray(path.read_bytes())
    data[borders(path)[3] + 10] ^= 0x40
    path.write_bytes(data)


@_fault("tar-header")
def _times_in_the_headers(folder: Path) -> None:
    path = shards(folder)[1]
    write_tar(path, read_tar(path), shape=lambda info: setattr(info, "mtime", 1_700_000_000))


@_fault("column-caption")
def _captions_swapped_in_the_tar(folder: Path) -> None:
    def swap(members: Members) -> None:
        (one, text), (other, more) = members[2], members[5]
        members[2], members[5] = (one, more), (other, text)

    edit_tar(folder, swap)


@_fault("member-not-adjacent")
def _members_apart(folder: Path) -> None:
    edit_tar(folder, lambda members: [members[0], *members[3:], *members[1:3]])


@_fault("member-duplicate")
def _a_member_twice(folder: Path) -> None:
    edit_tar(folder, lambda members: [*members[:2], members[1], *members[2:]])


@_fault("image-missing")
def _a_sample_without_image(folder: Path) -> None:
    edit_tar(folder, lambda members: members[1:])


@_fault("sidecar-row-missing")
def _a_sample_more(folder: Path) -> None:
    more = [("more.jpg", images.photo(99, 80, 60)), ("more.txt", b"one more")]
    edit_tar(folder, lambda members: [*members, *more])


# names


@_fault("tar-extended-header")
def _a_name_that_needs_pax(folder: Path) -> None:
    _rename_second(folder, lambda key: f"é{key}", tarfile.PAX_FORMAT)


@_fault("tar-extended-header")
def _a_long_name_of_gnu_tar(folder: Path) -> None:
    _rename_second(folder, lambda key: f"{key}{'x' * 100}", tarfile.GNU_FORMAT)


@_fault("extension-unsafe")
def _an_upper_case_extension(folder: Path) -> None:
    second = _second(folder)
    rename(folder, lambda name: f"{second}.JPG" if name == f"{second}.jpg" else name)


@_fault("extension-format")
def _an_extension_of_another_format(folder: Path) -> None:
    second = _second(folder)
    rename(folder, lambda name: f"{second}.png" if name == f"{second}.jpg" else name)


@_fault("key-duplicate")
def _a_key_in_two_shards(folder: Path) -> None:
    other = read_tar(shards(folder)[0])[0][0].partition(".")[0]
    _rename_second(folder, lambda _: other)


@_fault("key-case")
def _a_key_in_another_case(folder: Path) -> None:
    rename(folder, lambda name: name.replace("000-", "abc-", 1), 0)
    first = read_tar(shards(folder)[0])[0][0].partition(".")[0]
    _rename_second(folder, lambda _: first.upper())


def _second(folder: Path) -> str:
    return read_tar(shards(folder)[1])[3][0].partition(".")[0]


def _rename_second(
    folder: Path, names: Callable[[str], str], kind: int = tarfile.USTAR_FORMAT
) -> None:
    second = _second(folder)

    def renamed(name: str) -> str:
        key, _, extension = name.partition(".")
        return f"{names(key)}.{extension}" if key == second else name

    rename(folder, renamed, 1, kind)


# contents


def _replace(folder: Path, at: int, data: Callable[[bytes], bytes], *, told: bool = False) -> None:
    """Change a member's bytes; ``told``: the sidecar's digests follow."""

    def changed(members: Members) -> None:
        members[at] = (members[at][0], data(members[at][1]))

    edit_tar(folder, changed)
    if told:
        digest = hashlib.sha256(read_tar(shards(folder)[1])[at][1]).hexdigest()

        def follow(rows: list[dict[str, Any]]) -> None:
            rows[at // 3]["sha256"] = rows[at // 3]["original_sha256"] = digest

        edit_rows(folder, follow)


@_fault("image-undecodable")
def _an_image_cut(folder: Path) -> None:
    _replace(folder, 3, lambda data: data[: len(data) // 2], told=True)


@_fault("column-sha256")
def _an_image_replaced(folder: Path) -> None:
    _replace(folder, 3, lambda _: images.photo(77, 125, 96))


@_fault("text-encoding")
def _a_caption_with_a_byte_order_mark(folder: Path) -> None:
    _replace(folder, 5, lambda data: b"\xef\xbb\xbf" + data)
    edit_rows(folder, _set(1, "caption", lambda text: f"\ufeff{text}"))


@_fault("text-encoding")
def _a_caption_that_is_not_utf_8(folder: Path) -> None:
    _replace(folder, 5, lambda _: b"caf\xe9")
    edit_rows(folder, _set(1, "caption", lambda _: None))


@_fault("json-invalid")
def _a_json_member_cut(folder: Path) -> None:
    _replace(folder, 4, lambda data: data[:-1])


# shards


@_fault("file-missing", agreed="manifest-name")
def _tar_missing(folder: Path) -> None:
    shards(folder)[1].unlink()


@_fault("file-missing", agreed="manifest-name")
def _shard_missing(folder: Path) -> None:
    path = shards(folder)[1]
    path.unlink()
    path.with_suffix(".parquet").unlink()


@_fault("file-missing", agreed="shard-name")
def _shard_renamed(folder: Path) -> None:
    path = shards(folder)[1]
    for suffix in (".tar", ".parquet"):
        path.with_suffix(suffix).rename(folder / f"renamed{suffix}")


@_fault("shard-empty")
def _shard_empty(folder: Path) -> None:
    edit_rows(folder, lambda rows: rows[:0] or [])
    path = shards(folder)[1]
    table = pq.read_table(path.with_suffix(".parquet"))
    pq.write_table(table.slice(0, 0), path.with_suffix(".parquet"))
    write_tar(path, [])


@_fault("file-unlisted", file="more.tar", agreed="manifest-name")
def _a_tar_more(folder: Path) -> None:
    write_tar(folder / "more.tar", read_tar(shards(folder)[0]))


@_fault("file-leftover", file=".images")
def _a_hidden_leftover(folder: Path) -> None:
    (folder / ".images-000003.tar.0badcafe.tmp").write_bytes(b"half of a tar")


# the dataset


@_fault("manifest-missing", file=MANIFEST, agreed="")
def _manifest_missing(folder: Path) -> None:
    (folder / MANIFEST).unlink()


@_fault("counts-kept", file=MANIFEST)
def _counts_in_the_manifest(folder: Path) -> None:
    def more(fields: dict[str, Any]) -> None:
        fields["counts"]["kept"] += 1
        fields["counts"]["indexed"] += 1

    edit_manifest(folder, more)


@_fault("manifest-sha256", file=MANIFEST, agreed="")
def _manifest_edited(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"name": "planted"', b'"name": "planned"', 1))


@_fault("counts-reasons", file="dropped/")
def _a_dropped_row_missing(folder: Path) -> None:
    path = folder / "dropped" / "dropped.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)


@_fault("recipe-differs", file="recipe.yaml")
def _recipe_edited(folder: Path) -> None:
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("images_per_tar: 4", "images_per_tar: 5"))


# index files


def _edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(path.read_bytes())
    change(found)
    path.write_text(json.dumps(found, indent=1))


@_fault("index-dali")
def _a_stale_index_of_dali(folder: Path) -> None:
    path = shards(folder)[1].with_suffix(".idx")
    lines = path.read_text().split("\n")
    words = lines[2].split(" ")
    words[1] = str(int(words[1]) + 512)
    lines[2] = " ".join(words)
    path.write_text("\n".join(lines))


@_fault("index-energon")
def _a_stale_index_of_energon(folder: Path) -> None:
    path = Path(f"{shards(folder)[1]}.idx")
    data = path.read_bytes()
    numbers = list(struct.unpack(f"<{len(data) // 8}Q", data))
    numbers[2] += 512
    path.write_bytes(struct.pack(f"<{len(numbers)}Q", *numbers))


@_fault("index-energon", file=".nv-meta/")
def _a_stale_list_of_energon(folder: Path) -> None:
    def fewer(found: dict[str, Any]) -> None:
        found["shard_counts"][shards(folder)[1].name] -= 1

    _edit_json(folder / ".nv-meta" / ".info.json", fewer)


@_fault("index-energon", file=".nv-meta/")
def _a_stale_database_of_energon(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / ".nv-meta" / "index.sqlite")) as database:
        database.execute(
            "UPDATE sample_parts SET content_byte_offset = content_byte_offset + 512 "
            "WHERE tar_file_id = 1 AND sample_index = 2 AND part_name = 'txt'"
        )
        database.commit()


@_fault("index-energon", file=".nv-meta/")
def _a_split_of_energon_without_a_tar(folder: Path) -> None:
    path = folder / ".nv-meta" / "split.yaml"
    path.write_text(path.read_text().replace("000002}", "000001}"))


@_fault("index-wids", file="wids.json")
def _a_stale_list_of_wids(folder: Path) -> None:
    def more(found: dict[str, Any]) -> None:
        found["shardlist"][1]["nsamples"] += 1

    _edit_json(folder / "wids.json", more)


@_fault("index-litdata", file="index.json")
def _a_stale_list_of_litdata(folder: Path) -> None:
    def fewer(found: dict[str, Any]) -> None:
        found["chunks"][1]["chunk_size"] -= 1

    _edit_json(folder / "index.json", fewer)


@_fault("index-croissant", file="croissant.json")
def _a_stale_digest_in_croissant(folder: Path) -> None:
    def other(found: dict[str, Any]) -> None:
        tar = next(each for each in found["distribution"] if "sha256" in each)
        tar["sha256"] = tar["sha256"][::-1]

    _edit_json(folder / "croissant.json", other)


@_fault("index-frictionless", file="datapackage.json")
def _a_stale_size_in_the_data_package(folder: Path) -> None:
    def other(found: dict[str, Any]) -> None:
        for each in found["resources"]:
            if "bytes" in each:
                each["bytes"] += 1

    _edit_json(folder / "datapackage.json", other)


@_fault("index-card", file="README.md")
def _a_stale_count_on_the_card(folder: Path) -> None:
    path = folder / "README.md"
    text = path.read_text()
    path.write_text(text.replace(f"num_examples: {SAMPLES}", f"num_examples: {SAMPLES + 1}"))
