"""Manifests as programs and spreadsheets write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmx.data.items import Item, Items, Listing, split_named
from mmx.data.manifest import Manifest, held_out, read_manifest
from mmx.data.pairs import load_pairs
from mmx.errors import InputError
from mmx.training.engine.parallel import Team
from tests.test_pairs import Bytes, pair_folder

PLAIN = "source,target,split\naudios/a.wav,images/a.png,train\naudios/b c.wav,images/b c.png,val\n"
WRITTEN = {
    "with a byte order mark": PLAIN.encode("utf-8-sig"),
    "as Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "in the other byte order": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "with semicolons": PLAIN.replace(",", ";").encode(),
    "with tabs": PLAIN.replace(",", "\t").encode(),
    "with a line for Excel": ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
    "with spaces after commas": PLAIN.replace(",", ", ").encode(),
    "with spaces before commas": PLAIN.replace(",", " ,").encode(),
    "with capital headings": PLAIN.replace("source,target", "Source,TARGET").encode(),
    "with an empty last row": (PLAIN + ",,\n").encode(),
    "with empty lines": PLAIN.replace("\n", "\n\n").encode(),
    "with line ends of Windows": PLAIN.replace("\n", "\r\n").encode(),
    "with line ends of old Macs": PLAIN.replace("\n", "\r").encode(),
    "with backslashes": PLAIN.replace("/", "\\").encode(),
    "with quotes": "\n".join(",".join(f'"{cell}"' for cell in row.split(",")) for row in PLAIN.split()).encode()
    if " " not in PLAIN
    else b'"source","target","split"\n"audios/a.wav","images/a.png","train"\n"audios/b c.wav","images/b c.png","val"',
    "with splits in other words": PLAIN.replace("train", "Train").replace("val", "validation").encode(),
    "with a column for each thing": PLAIN.replace("\n", ",\n").encode(),
    "with a very long caption": PLAIN.replace("split\n", "split,caption\n")
    .replace("train\n", f"train,{'word ' * 60_000}\n")
    .replace("val\n", "val,\n")
    .encode(),
}


def read(path: Path) -> Manifest:
    return read_manifest(str(path), "sound2img")


def places(manifest: Manifest, root: Path) -> list[tuple[str, ...]]:
    both = zip(manifest.sources.items, manifest.targets.items, strict=True)
    return [tuple(Path(item.path).relative_to(root).as_posix() for item in row) for row in both]


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".tsv", ".txt"])
@pytest.mark.parametrize("how", list(WRITTEN))
def test_cells_are_what_they_mean(tmp_path: Path, how: str, suffix: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    path.write_bytes(WRITTEN[how])
    manifest = read(path)
    assert places(manifest, tmp_path) == [("audios/a.wav", "images/a.png"), ("audios/b c.wav", "images/b c.png")]
    assert list(manifest.sources.splits) == list(manifest.targets.splits) == [0, 1]


@pytest.mark.parametrize("suffix", [".jsonl", ".JSONL", ".ndjson", ".txt"])
@pytest.mark.parametrize("encoding", ["utf8", "utf-8-sig", "utf-16"])
def test_json_lines_are_what_they_mean(tmp_path: Path, suffix: str, encoding: str) -> None:
    path = tmp_path / f"pairs{suffix}"
    rows = [
        {"Source ": "audios\\é.wav", "target": " é.png ", "split": "Validation", "weight": "2,5", "label": 3},
        {"source": 7, "target": "7.png", "split": "train", "weight": None, "label": "x", "source2": float("nan")},
    ]
    path.write_text("\r\n".join(map(json.dumps, rows)) + "\r\n \r\n", encoding=encoding)
    manifest = read(path)
    assert places(manifest, tmp_path) == [("audios/é.wav", "é.png"), ("7", "7.png")]
    assert list(manifest.sources.splits) == [1, 0] and list(manifest.sources.weights) == [2.5, 1.0]
    assert manifest.label_names == ["3", "x"] and manifest.second_sources is None


def test_what_is_unusual_is_known(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes(b"Source;target;split\na\\a.wav;a.png;Train\na\\b.wav;b.png;trian\n;;\n")
    manifest = read(tmp_path / "p.csv")
    assert manifest.odd == [
        "p.csv: cells are separated by ';'",
        "p.csv: the column 'Source' is taken as source",
        r"p.csv: paths are written with \ for / (2 times)",
        "p.csv: rows are empty",
    ]
    assert manifest.sources.odd_splits() == [
        "the split 'Train' is taken as train: 1 items",
        "the split 'trian' is neither train nor val, and training leaves it out: 1 items",
    ]
    (tmp_path / "plain.csv").write_text(PLAIN)
    assert read(tmp_path / "plain.csv").odd == []


def test_a_backslash_that_is_a_part_of_a_name_stays(tmp_path: Path) -> None:
    (tmp_path / r"a\b.wav").touch()
    (tmp_path / "p.csv").write_text("source,target\na\\b.wav,b.png\n")
    assert places(read(tmp_path / "p.csv"), tmp_path) == [(r"a\b.wav", "b.png")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sound,picture\na,b\n", "p.csv:2: a row needs a source and a target; it has the columns: sound, picture"),
        ("source,target\na.wav,\n", "p.csv:2: a row needs a source and a target"),
        ("source,target\n\n\na.wav,\n", "p.csv:4: a row needs"),
        ('source,target\n"a.wav,a.png\nb.wav,b.png\n', "is a quote left open"),
        ('source,caption,target\na.wav,"open,a.png\nb.wav,,b.png\n', "is a quote left open"),
        ("source,target\nhttps://host/a.wav?key=secret,a.png\n", "https://host/a.wav is an address"),
        ('{"source": 1.5, "target": "a"}', "p.csv:1: source is 1.5, and names of files are texts"),
        ('{"source": true, "target": "a"}', "source is True, and names"),
        ('{"source": ["a"], "target": "a"}', "source is ['a'], and names"),
        ('{"source": "a\\u0000b", "target": "a"}', "holds the end of a line"),
        ("5\n", "a row needs"),
        ('[{"source": "a", "target": "b"}]', "write one object a line"),
        ("{" * 100_000, "not JSON"),
        ("\n \n", "no rows"),
    ],
)
def test_what_can_not_be_meant_is_said(mmx_in_process, tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    if text.startswith(("{", "[", "5")):
        path = path.rename(tmp_path / "p.jsonl")
    code, _, err = mmx_in_process("data", "check", path)
    said = err.decode()
    assert code == 3 and message.replace("p.csv", path.name) in said and "bug" not in said and "secret" not in said


@pytest.mark.parametrize("data", [b"PK\x03\x04\xff\xfe\x00", "source,target\né.wav,b.png".encode("latin-1")])
def test_what_is_no_unicode_is_said(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p.csv").write_bytes(data)
    with pytest.raises(InputError, match="not a text file in UTF-8") as raised:
        read(tmp_path / "p.csv")
    assert "CSV UTF-8" in raised.value.hint


def test_splits_by_their_usual_names() -> None:
    names = [" Train", "TRAINING", "valid", "validation", "Dev", "Test", "other", 7]
    assert [split_named(name) for name in names] == ["train", "train", "val", "val", "val", "test", "other", "7"]
    listing = Listing()
    for number in range(300):
        listing.add(f"s{number}", -1, 1.0, Item("a", "a"))
    assert len(listing.splits) == 300 and sum(listing.counts().values()) == 300


def test_a_split_that_nothing_is_trained_on_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pair_folder(tmp_path / "pairs", 6)

    def load(*splits: str):
        rows = [
            {"source": f"pairs/audios/deep/x{k}.wav", "target": f"pairs/images/deep/x{k}.png", "split": split}
            for k, split in enumerate(splits)
        ]
        (folder.parent / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        return load_pairs(read(folder.parent / "rows.jsonl"), Bytes(), Bytes(), Team(), cache=tmp_path / "c")

    loaded = load("Train", "train", "trian", "Test", "Validation", "training")
    assert len(loaded.train.sources) == 3 and len(loaded.val.sources) == 1
    said = capsys.readouterr().err
    assert "'trian' is neither train nor val, and training leaves it out: 1 items" in said and "'test'" not in said
    with pytest.raises(InputError, match=r"no usable pairs; the data's splits are: trian 4"):
        load(*["trian"] * 4)


def test_names_that_are_no_text_are_kept_as_they_are(tmp_path: Path) -> None:
    for name in ("\udcff.wav", "\ud800.wav", "é.wav"):
        items = Items()
        items.append(Item(name, name))
        assert items[0].path == name and held_out(name) in ("train", "val")
        with pytest.raises(InputError):
            items[0].read()


def test_pairs_by_stem_leave_out_hidden_files_and_take_the_best_of_equal_stems(tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "pairs", 3)
    audios, images = folder / "audios" / "deep", folder / "images" / "deep"
    for side, suffix in ((audios, "wav"), (images, "png")):
        (side / f"._x1.{suffix}").write_bytes(b"\0\5\x16\7")
        (side / f"._lonely.{suffix}").write_bytes(b"\0\5\x16\7")
    for name in ("x0.mp3", "x0.opus", "x2.OGG"):
        (audios / name).touch()
    (audios / "e\u0301.wav").touch()
    (images / "\u00e9.png").touch()
    names = [Path(item.path).name for item in read(folder).sources.items]
    assert names == ["x0.wav", "x1.wav", "x2.OGG", "e\u0301.wav"]
