"""What a dataset holds: by its sidecars, and the same by its tars."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from pixsieve.loaders.expected import Expected, digest, image_digest


def test_sidecars_say_what_there_is(small):
    expected = Expected(small)
    tables = [pq.read_table(small / shard.sidecar).to_pylist() for shard in expected.shards]
    rows = [row for table in tables for row in table]
    assert expected.borders.tolist() == [0, 4, 8, 12]
    assert expected.keys.tolist() == [digest(row["key"]) for row in rows]
    assert expected.images.tolist() == [image_digest(row["sha256"]) for row in rows]
    assert expected.sizes.tolist() == [[row["width"], row["height"]] for row in rows]
    assert expected.turned.tolist() == [row["exif_orientation"] >= 5 for row in rows]
    assert expected.folder.samples == 12
    assert expected.folder.images == ("jpg",)
    assert expected.folder.captions
    for number in (0, 5, 11, 4):
        assert expected.row(number).key == rows[number]["key"]
        assert expected.find(rows[number]["key"]).tolist() == [number]
        assert expected.shard(number).tar == rows[number]["tar_file"]
    assert expected.find("nobody").tolist() == []


def test_tars_say_the_same_where_there_is_no_sidecar(small):
    by_rows = Expected(small)
    for path in small.glob("*.parquet"):
        path.unlink()
    by_tars = Expected(small)
    assert by_tars.folder.sidecars == ()
    for name in ("keys", "images", "sizes", "turned", "captions", "texts", "is_text"):
        np.testing.assert_array_equal(getattr(by_tars, name), getattr(by_rows, name), name)


def test_captions_that_no_member_holds_are_for_rows_alone(small):
    expected = Expected(small)
    row = expected._rows(expected.shards[0])
    assert next(row).text == next(expected._rows(expected.shards[0])).caption
    path = small / expected.shards[0].sidecar
    table = pq.read_table(path)
    members = [[name for name in names if not name.endswith(".txt")]
               for names in table["members"].to_pylist()]  # fmt: skip
    at = table.schema.get_field_index("members")
    pq.write_table(table.set_column(at, table.schema.field(at), [members]), path)
    changed = Expected(small)
    assert changed.texts[0] == 0
    assert changed.captions[0] == expected.captions[0] != 0
    assert changed.is_text.all()


def test_the_manifest_gives_the_order(small):
    before = Expected(small).folder.tars
    text = (small / "manifest.json").read_text(encoding="utf-8")
    first, second = before[:2]
    swapped = text.replace(first, "?").replace(second, first).replace("?", second)
    stems = [name.removesuffix(".tar") + ".parquet" for name in (first, second)]
    swapped = swapped.replace(stems[0], "?").replace(stems[1], stems[0]).replace("?", stems[1])
    (small / "manifest.json").write_text(swapped, encoding="utf-8")
    assert Expected(small).folder.tars == (second, first, *before[2:])
    (small / "manifest.json").write_text("no JSON")
    assert Expected(small).folder.tars == before
