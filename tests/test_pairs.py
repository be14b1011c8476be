"""The cache, the manifests, the pairs drawn from them, and what `mmx data check` finds."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mmx.data.cache import content_key
from mmx.data.items import Item
from mmx.data.manifest import held_out, read_manifest
from mmx.data.pairs import Groups, Pairs, Rows, load_pairs
from mmx.errors import InputError
from mmx.training.bridges.measures import retrieval
from mmx.training.engine.parallel import Team
from tests.conftest import ROOT
from tests.small_data import COMMON, Bytes, Encoder, filled, losses, pair_folder, png, wav, write


def test_rows_come_back_and_nothing_is_computed_twice(tmp_path: Path) -> None:
    items, encode = write(tmp_path / "files", 20), Encoder()
    items += [Item("copy", items[3].path), Item("gone", str(tmp_path / "gone"))]
    found, cache = filled(items, tmp_path, encode)
    assert encode.calls == 20 and found.bad == ["7", "gone"]
    for number in range(20):
        if number != 7:
            assert torch.equal(cache.read(int(found.rows[number])), torch.full((number + 1, 2), float(number + 1)))
    assert torch.equal(cache.read(int(found.rows[9]), 4, 3), torch.full((3, 2), 10.0))
    assert found.rows[20] == found.rows[3]
    again, _ = filled(items[:-1], tmp_path, encode)
    assert encode.calls == 20 and again.bad == ["7"]
    (tmp_path / "files" / "5.bin").write_bytes(bytes([5, 99, 0]))  # changed: it is another file now
    changed, cache = filled(items[:-1], tmp_path, encode)
    assert encode.calls == 21 and cache.read(int(changed.rows[5]))[0, 0] == 99


def test_two_processes_and_a_kill_leave_a_whole_cache(python, tmp_path: Path) -> None:
    """Two that compute the same at the same time, and one that is killed while it writes: every row is whole."""
    items = write(tmp_path / "files", 12)
    script = f"""
import sys; sys.path.insert(0, {str(ROOT)!r})
import os, signal, torch
from pathlib import Path
import mmx.data.fill
mmx.data.fill.CHUNK = 4
from tests.small_data import Encoder, Item, filled
folder = Path({str(tmp_path)!r})
items = [Item(str(n), str(folder / "files" / f"{{n}}.bin")) for n in range(12)]
if sys.argv[1] == "killed":
    whole, done = os.replace, []
    def replace(a, b):
        if len(done) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(whole(a, b))
    os.replace = replace
filled(items, folder, Encoder())
"""
    killed = subprocess.run([*python, "-c", script, "killed"], check=False)
    assert killed.returncode == -signal.SIGKILL
    both = [subprocess.Popen([*python, "-c", script, "whole"]) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    encode = Encoder()
    found, cache = filled(items, tmp_path, encode)
    assert encode.calls == 0 and found.bad == ["7"]
    assert all(cache.read(int(found.rows[n])).shape == (n + 1, 2) for n in range(12) if n != 7)


def test_a_cache_of_more_shards_than_files_may_be_open(python, tmp_path: Path) -> None:
    script = f"""
import resource, sys; sys.path.insert(0, {str(ROOT)!r})
import torch, numpy as np
from pathlib import Path
from mmx.data.cache import Cache
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
cache = Cache(Path({str(tmp_path)!r}))
for number in range(300):
    cache.add([number + 1], [torch.full((2, 3), float(number))])
cache.refresh()
rows = cache.find(np.arange(1, 301, dtype=np.uint64))
print([int(cache.read(int(row))[1, 2]) for row in rows] == list(range(300)))
"""
    done = subprocess.run([*python, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


def test_groups_draw_members_of_their_label() -> None:
    labels = torch.tensor([5, 2, 5, 9, 2, 5])
    groups = Groups(labels)
    generator = torch.Generator().manual_seed(0)
    wanted = labels[torch.randint(6, (200,), generator=generator)]
    drawn = groups.draw(wanted, torch.rand(200, generator=generator))
    assert torch.equal(labels[drawn], wanted)
    assert set(drawn[wanted == 5].tolist()) == {0, 2, 5} and set(drawn[wanted == 2].tolist()) == {1, 4}


def test_retrieval_against_a_naive_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    points, targets = torch.randn(12, 6, generator=generator), torch.randn(15, 6, generator=generator)
    own, others = torch.arange(12) % 5, torch.arange(15) % 5
    found = retrieval(points, targets, own, others)
    ranks = []
    for point, label in zip(points, own, strict=True):
        cosines = torch.nn.functional.cosine_similarity(point[None], targets)
        order = sorted(range(15), key=lambda i: -float(cosines[i]))
        ranks.append(next(place for place, i in enumerate(order, 1) if others[i] == label))
    for k in (1, 5, 10):
        assert found[f"val_recall_at_{k}"] == pytest.approx(np.mean([rank <= k for rank in ranks]))
    assert found["val_mean_rank"] == pytest.approx(np.mean(ranks)) and found["val_chance"] == pytest.approx(36 / 180)
    same = retrieval(points, points, torch.arange(12), torch.arange(12))
    assert same["val_recall_at_1"] == same["val_back_recall_at_1"] == same["val_mean_rank"] == 1
    assert same["val_alignment"] == pytest.approx(0, abs=1e-5)


def test_manifests_and_folders_name_the_same_pairs(tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "pairs")
    stems = read_manifest(str(folder), "sound2img")
    rows = [{"source": f"pairs/audios/deep/x{k}.wav", "target": f"pairs/images/deep/x{k}.png"} for k in range(6)]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    lines = ["source,target,split,weight,label"] + [
        f"{r['source']},{r['target']},train,2.5,l{k % 2}" for k, r in enumerate(rows)
    ]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    for name in ("rows.jsonl", "rows.csv"):
        manifest = read_manifest(str(tmp_path / name), "sound2img")
        assert [Path(item.path) for item in manifest.sources.items] == [Path(item.path) for item in stems.sources.items]
        assert [item.read() for item in manifest.targets.items] == [png(9 * k) for k in range(6)]
    assert manifest.label_names == ["l0", "l1"] and list(manifest.labels()[0]) == [0, 1] * 3
    assert list(manifest.sources.weights) == [2.5] * 6 and list(manifest.sources.splits) == [0] * 6
    assert [held_out(f"k{n}") for n in range(400)].count("val") in range(8, 36)


def test_shards_whose_samples_hold_both_sides(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a-000.tar", "w") as tar:
        for number in range(4):
            files = {
                "wav": wav(300 + number),
                "png": png(number),
                "json": json.dumps({"split": "val" if number == 3 else "train"}).encode(),
            }
            for suffix, data in files.items():
                info = tarfile.TarInfo(f"s{number}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    for given in (str(tmp_path), str(tmp_path / "a-{000..000}.tar"), f"file://{tmp_path}/a-000.tar"):
        manifest = read_manifest(given, "sound2img")
        assert [item.read() for item in manifest.sources.items] == [wav(300 + k) for k in range(4)]
        assert [item.read() for item in manifest.targets.items] == [png(k) for k in range(4)]
        assert list(manifest.sources.splits) == [0, 0, 0, 1] and manifest.direct


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"source": "x.wav"}', "a.jsonl:1: a row needs a source and a target"),
        ("a.jsonl", '{"source": "x", "target": "y"}\nnot json', "a.jsonl:2: not JSON"),
        ("a.csv", "source,target,weight\nx,y,heavy", "weight 'heavy' is not a number"),
        ("a.csv", "source,target,weight\nx,y,-1", "not a finite number, zero or above"),
        ("a.csv", "source,target,label\nx,y,l\nx,z,", "some rows have a label and some have none"),
        ("a.jsonl", "", "no rows"),
    ],
)
def test_bad_manifests_are_refused_with_their_line(
    mmx_in_process, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    code, _, err = mmx_in_process("data", "check", tmp_path / name)
    assert code == 3 and message in err.decode() and b"Traceback" not in err


def test_check_finds_what_was_planted(mmx_in_process, tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "pairs", 60)
    audios, images = folder / "audios" / "deep", folder / "images" / "deep"
    (audios / "x1.wav").write_bytes(b"noise")
    (audios / "x2.wav").write_bytes(wav(0.0))
    (audios / "x3.wav").write_bytes(wav(300, 0.2))
    whole = (audios / "x0.wav").read_bytes()
    (audios / "x0.wav").write_bytes(whole[: len(whole) * 2 // 3])
    (images / "x5.png").write_bytes((images / "x4.png").read_bytes())
    train, val = ([k for k in range(6, 60) if held_out(f"deep/x{k}") == split] for split in ("train", "val"))
    (audios / f"x{val[0]}.wav").write_bytes((audios / f"x{train[0]}.wav").read_bytes())
    (images / "alone.png").write_bytes(png(3))
    code, out, err = mmx_in_process("data", "check", folder, "--json")
    problems = json.loads(out)["problems"]
    names = {problem: [name.split("/")[-1] for name in found] for problem, found in problems.items()}
    assert code == 0, err.decode()
    assert names["unreadable"] == ["x1.wav"] and names["silent"] == ["x2.wav"] and names["short"] == ["x3.wav"]
    assert len(problems["cut"]) == 1 and "x0.wav: cut short" in problems["cut"][0]
    assert len(names["leaking"]) == 1 and names["mismatched"] == ["alone.png"]
    assert (
        len(names["duplicate"]) == 1 and "x4.png" in problems["duplicate"][0] and "x5.png" in problems["duplicate"][0]
    )
    for number in range(10, 20):
        (audios / f"x{number}.wav").write_bytes(b"broken")
    assert mmx_in_process("data", "check", folder)[0] == 3


def test_a_bad_side_drops_the_pair_and_many_stop(tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "pairs", 60)
    (folder / "images" / "deep" / "x7.png").write_bytes(b"")
    loaded = load_pairs(
        read_manifest(str(folder), "sound2img"), Bytes(), Bytes(), Team(), cache=tmp_path / "c", quiet=True
    )
    assert len(loaded.train.sources) + len(loaded.val.sources) == 59 and len(loaded.skipped) == 1
    for number in range(4):
        (folder / "images" / "deep" / f"x{number}.png").write_bytes(b"")
    with pytest.raises(InputError, match="5 of 60 samples can't be read"):
        load_pairs(read_manifest(str(folder), "sound2img"), Bytes(), Bytes(), Team(), cache=tmp_path / "c", quiet=True)


def test_a_weight_of_zero_means_never(tmp_path: Path) -> None:
    folder = pair_folder(tmp_path / "pairs", 6)
    rows = [{"source": f"pairs/audios/deep/x{k}.wav", "target": f"pairs/images/deep/x{k}.png"} for k in range(6)]

    def load(*weights: object):
        lines = [json.dumps(row | {"split": "train", "weight": w}) for row, w in zip(rows, weights, strict=True)]
        (folder.parent / "rows.jsonl").write_text("\n".join(lines))
        manifest = read_manifest(str(folder.parent / "rows.jsonl"), "sound2img")
        return load_pairs(manifest, Bytes(), Bytes(), Team(), cache=tmp_path / "c", quiet=True).train

    assert load(0, 2, None, "", "0.5", 0.0).weights.tolist() == [0, 2, 1, 1, 0.5, 0]
    with pytest.raises(InputError, match="all weights"):
        load(0, 0, 0, 0, 0, 0)


def test_weights_choose_pairs() -> None:
    rows = Rows(None, torch.arange(4), torch.arange(4))
    pairs = Pairs(rows, rows, True, torch.tensor([0.0, 1.0, 0.0, 3.0]))
    picks, labels = pairs.draw(4000, torch.Generator().manual_seed(0))
    counts = torch.bincount(picks, minlength=4)
    assert counts[0] == counts[2] == 0 and 2.5 < counts[3] / counts[1] < 3.5 and torch.equal(picks, labels)
    assert torch.equal(pairs.targets_of(picks, labels, torch.rand(4000)), picks)


def test_keys_are_the_sha256() -> None:
    import hashlib

    assert content_key(b"mmx") == int.from_bytes(hashlib.sha256(b"mmx").digest()[:8], "little")


@pytest.mark.parametrize("hears", ["--norm=group", "--norm=batch", "--architecture=transformer"])
def test_two_processes_train_as_one_with_the_doubled_batch(
    python, two_processes, tmp_path: Path, debug_models, hears: str
) -> None:
    """Over gloo: negatives, batch normalisation and gradients are those of the whole batch."""
    folder = pair_folder(tmp_path / "pairs", 40)
    command = ["-m", "mmx", "train-bridge", "sound2img", "--data", str(folder), "--decoder", str(debug_models[1])]
    command += [*COMMON, hears]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    one = [*python, *command, "-o", str(tmp_path / "one"), "--batch-size", "12"]
    two = [*two_processes, *command, "-o", str(tmp_path / "two"), "--batch-size", "6"]
    for line in (one, two):
        done = subprocess.run(line, capture_output=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two")]
    assert metrics[0]["batch_size"] == metrics[1]["batch_size"] == 12
    alone, together = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert alone[0] == pytest.approx(together[0], rel=1e-4)
    # Adam's first steps are signs: sums in another order, which flip those of tiny gradients, part the runs soon
    assert alone[:3] == pytest.approx(together[:3], rel=1e-2) and alone == pytest.approx(together, rel=5e-2)
    assert metrics[0]["val"]["val_alignment"] == pytest.approx(metrics[1]["val"]["val_alignment"], rel=2e-2)
