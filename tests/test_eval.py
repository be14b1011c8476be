"""`mmx eval` on anybody's pairs, and the metrics against known answers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import tiny, tiny_speech
from tests.debug import LABELS
from tests.small_data import pair_folder, png, wav, write_shard


def test_pairs_are_measured_beside_oracle_and_random(mmx_in_process, debug_options, tmp_path: Path) -> None:
    data = pair_folder(tmp_path / "pairs", 120)
    (data / "audios" / "deep" / "x1.wav").write_bytes(b"broken")
    options = debug_options[:4]
    command = ("eval", "sound2img", "--data", data, "-o", tmp_path / "report", "--split", "train", "--limit", 40)
    code, out, err = mmx_in_process(*command, "--json", *options)
    assert code == 0, err.decode()
    result = json.loads(out)
    assert result == json.loads((tmp_path / "report" / "metrics.json").read_text())
    retrieval, pictures = result["retrieval"], result["pictures"]
    oracle, random = retrieval["oracle: the target mirrored"], retrieval["random: another source"]
    assert oracle["recall_at_1"] == 1 and oracle["alignment"] == pytest.approx(
        0, abs=1e-3
    )  # flat colours: a mirror changes nothing
    assert random["chance"] == pytest.approx(1 / result["data"]["train"]["pairs"])
    assert pictures["real targets"]["similarity"] == pytest.approx(1, abs=1e-3)
    assert result["data"]["train"]["pairs"] + result["data"]["train"]["unreadable"] == 40
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<audio") == 24 and page.count("<img") == 48 and "http" not in page.replace("http-equiv", "")
    code, _, err = mmx_in_process(
        "eval", "sound2img", "--data", data, "-o", tmp_path / "r", "--split", "none", *options
    )
    assert code == 2 and b"no such split" in err
    code, _, err = mmx_in_process("eval", "sound2img", "--data", tmp_path / "no", "-o", tmp_path / "r", *options)
    assert code == 2 and b"no such file" in err


@pytest.mark.parametrize("period", [4, 8])
def test_a_texture_that_repeats_from_patch_to_patch_is_told(period: int) -> None:
    from mmx.evaluation.metrics import grid_energy

    draws = np.random.default_rng(0)
    smooth = [draws.integers(0, 256, (4, 4), np.uint8) for _ in range(40)]
    real = [Image.fromarray(array).resize((64, 64), Image.Resampling.BICUBIC) for array in smooth]
    real = [
        Image.fromarray((0.8 * np.asarray(x) + draws.normal(0, 6, (64, 64))).clip(0, 255).astype(np.uint8))
        for x in real
    ]
    texture = np.tile(np.pad([[8.0]], (0, period - 1)), (64 // period, 64 // period))
    marked = [Image.fromarray((np.asarray(x) + texture).clip(0, 255).astype(np.uint8)) for x in real]
    assert grid_energy(real, real) == 1 and grid_energy(real[:20], real[20:]) < 2
    assert grid_energy(marked, real) > 1.5 * grid_energy(real[:20], real[20:])


def test_distances_of_gaussians_are_known() -> None:
    """FID of two Gaussians of one covariance is the squared distance of their means."""
    from mmx.evaluation.metrics import distances

    generator = torch.Generator().manual_seed(0)
    real = torch.randn(4000, 4, generator=generator)
    moved = torch.randn(4000, 4, generator=generator) + torch.tensor([2.0, 0.0, 0.0, 0.0])
    assert distances(moved, real)["fid"] == pytest.approx(4, rel=0.05)
    again = distances(torch.randn(4000, 4, generator=generator), real)
    assert again["fid"] < 0.02 and abs(again["kid"]) < 0.02 < distances(moved, real)["kid"]


def test_what_is_heard_is_counted_by_name_and_by_concept() -> None:
    from mmx.evaluation.img2speech import name_accuracy, word_errors

    concepts = {"a tabby": "cat", "a lynx": "cat", "a pug": "dog", "a sock": None}
    counted = name_accuracy(["a tabby", "a lynx", "a sock", None], ["a tabby", "a tabby", "a pug", "a sock"], concepts)
    assert counted == {"name": 0.25, "name_or_concept": 0.5, "nothing": 0.25}
    assert word_errors(["a cat sat"], ["a cat sat down"]) == pytest.approx(1 / 4)


def test_cepstral_distortion_by_its_formula() -> None:
    from scipy.fft import dct

    from mmx.evaluation.img2speech import mel_cepstral_distortion

    rng = np.random.default_rng(0)
    a, b = rng.uniform(-1, 0, (2, 7, 80)).astype(np.float32)
    cepstra = [dct(np.log(10) * mel, norm="ortho", axis=1)[:, 1:14] for mel in (a, b)]
    naive = (10 / np.log(10) * np.sqrt(2 * ((cepstra[0] - cepstra[1]) ** 2).sum(1))).mean()
    assert mel_cepstral_distortion(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(naive, rel=1e-4)
    assert mel_cepstral_distortion(torch.from_numpy(b), torch.from_numpy(b)) == 0


def labelled(folder: Path, prefix: str, samples: dict[str, dict[str, bytes]]) -> None:
    folder.mkdir(exist_ok=True)
    write_shard(folder / f"{prefix}-000.tar", samples)


def about(**meta: object) -> bytes:
    return json.dumps(meta).encode()


@pytest.fixture(scope="module")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sounds and photos of the debug bridge's labels, and of something that it has no name for."""
    folder, names = tmp_path_factory.mktemp("concepts"), [*LABELS, "unheard"]
    sounds, images = {}, {}
    for number, name in enumerate(names * 4):
        split = "val" if number // len(names) % 2 else "train"
        sounds[f"s{number:02d}"] = {"wav": wav(200 + 20 * number, 0.3), "json": about(concept=name, split=split)}
        images[f"i{number:02d}"] = {"png": png(9 * number), "json": about(concept=name, split=split)}
    labelled(folder, "sounds", sounds)
    labelled(folder, "images", images)
    return folder


def measured(mmx_in_process, report: Path, task: str, data: Path, *options: object) -> dict:
    command = ("eval", task, "--data", data, "-o", report, "--json", "--judge-steps", 1, "--device", "cpu")
    code, out, err = mmx_in_process(*command, *options)
    assert code == 0, err.decode()
    assert (report / "report.html").exists()
    return json.loads(out)


def test_sounds_are_named_and_drawn_by_concept(mmx_in_process, debug_options, tmp_path: Path, concepts: Path) -> None:
    result = measured(mmx_in_process, tmp_path / "r", "sound2img", concepts, "--limit", 2, *debug_options[:4])
    changed = {f"sound2img: {name}" for name in ("resampled", "quiet, in a rumble", "telephone")}
    assert set(result["naming"]) == {"sound2img", "oracle: photos", "random"} | changed
    assert result["naming"]["sound2img: quiet, in a rumble"]["same"] == 1  # of a CNN of random weights, too
    assert result["naming"]["random"]["top1"] == 1 / len(LABELS)
    counts = {name: row["count"] for name, row in result["pictures"].items()}
    assert len(counts) == 6 and counts["sound2img"] == counts["text: the concept's name"] > 0
    assert result["pictures"]["real photos"]["fid"] == pytest.approx(0, abs=1e-3)
    floor = result["pictures"]["as many real photos of training"]
    assert floor["fid"] > 0.01 and floor["count"] == counts["real photos"] and "top1" not in floor
    assert len(result["nearest_training_photo"]) == 4
    assert result["judge"] == "cnn"
    texts = result["text2img"]
    oracle = "oracle: a photo's own embedding"
    assert "a photo of a ..." in texts and len(texts) == 6 and texts["random"]["top1"] == 1 / len(LABELS)
    assert texts[oracle]["top1"] == result["pictures"][oracle]["top1"]
    assert result["diversity"]["sound2img: 8 of one sound"]["distance"] > 0
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "sounds-000.tar").symlink_to(concepts / "sounds-000.tar")
    write_shard(tmp_path / "few" / "images-000.tar", {"x": {"png": png(1), "json": about(concept="dog", split="val")}})
    command = ("eval", "sound2img", "--data", tmp_path / "few", "-o", tmp_path / "s", "--device", "cpu")
    code, _, err = mmx_in_process(*command, *debug_options[:4])
    assert code == 3 and b"no photo of ca" in err


def test_voices_are_measured_by_gender(mmx_in_process, face_options, tmp_path: Path, low: Path, high: Path) -> None:
    voices = {
        f"v{k}": {"wav": path.read_bytes(), "json": about(gender=gender, split="val")}
        for k, (path, gender) in enumerate(((low, "male"), (high, "female")))
    }
    faces = {
        f"f{k}": {"png": png(20 * k), "json": about(gender=("male", "female")[k % 2], split=("train", "val")[k // 4])}
        for k in range(8)
    }
    labelled(tmp_path / "data", "voices", voices)
    labelled(tmp_path / "data", "faces", faces)
    result = measured(mmx_in_process, tmp_path / "r", "voice2face", tmp_path / "data", *face_options[:4])
    counts = [row["count"] for row in result["faces"].values()]
    assert counts == [4, 4, 16, 16] and set(result["retrieval"]) == {"voice2face", "random"}
    assert result["faces"]["real faces"]["fid"] == pytest.approx(0, abs=1e-3)
    assert result["separation"]["same speaker"]["auc"] == 1 and len(result["nearest_training_face"]) == 3


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of two synsets, and what a voice says of them."""
    folder = tmp_path_factory.mktemp("spoken")
    meta = {name: {"synset": name, "name": name, "concept": "pet"} for name in ("cat", "dog")}
    images = {
        f"i{k}": {"png": png(30 * k), "json": about(synset=("cat", "dog", "sock")[k % 3], split="val")}
        for k in range(6)
    }
    said = {
        f"u{k}{name}": {"wav": wav(300 + 50 * k, 0.7), "json": about(**own, text=f"a {name}", voice="slt", split="val")}
        for name, own in meta.items()
        for k in range(2)
    }
    labelled(folder, "images", images)
    labelled(folder, "spoken", said)
    return folder


TABLES = {"naming", "unit_bleu", "utterances", "resynthesis"}


def test_speech_of_photos_is_heard_and_compared(mmx_in_process, speech_options, tmp_path: Path, spoken: Path) -> None:
    result = measured(mmx_in_process, tmp_path / "r", "img2speech", spoken, *speech_options)
    assert set(result) >= TABLES and len(result["naming"]) == 4 and len(result["resynthesis"]) == 6
    assert (tmp_path / "r" / "report.html").read_text().count("<audio") == 2  # one of each synset


def test_two_folders_of_pictures_and_speech_are_measured(mmx_in_process, speech_options, tmp_path: Path) -> None:
    for name, suffix, make in (("images", "png", lambda k: png(9 * k)), ("audios", "wav", lambda k: wav(200 + k, 0.7))):
        (tmp_path / "pairs" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "pairs" / name / f"{number}.{suffix}").write_bytes(make(number))
    (tmp_path / "pairs" / "images" / "1.png").write_bytes(b"broken")
    options = ("--split", "train", *speech_options)
    result = measured(mmx_in_process, tmp_path / "r", "img2speech", tmp_path / "pairs", *options)
    assert result["data"] == {"train": {"pairs": 2, "unreadable": 1}}
    bleu = {name.partition(":")[0]: row["bleu"] for name, row in result["unit_bleu"].items()}
    assert list(bleu) == ["oracle", "img2speech", "random"] and 0 <= bleu["img2speech"] <= 1
    assert list(result["heard"]) == ["oracle: the target's units", "img2speech", "random: another picture's utterance"]
    assert set(result["utterances"]) == {"img2speech", "target"}
    assert (tmp_path / "r" / "report.html").read_text().count("<audio") == 4


def test_captions_are_measured_as_any_speech(mmx_in_process, speech_models, tmp_path: Path, spoken: Path) -> None:
    """A bridge that goes through words has no config and no frontend, and speaks nevertheless."""
    captioner = "+".join(map(str, tiny_speech.captioner(tmp_path / "captioner")))
    options = ("--bridge", "caption", "--encoder", captioner, "--decoder", speech_models[1])
    result = measured(mmx_in_process, tmp_path / "r", "img2speech", spoken, "--limit", 1, *options)
    assert set(result) >= TABLES and 0 <= result["naming"]["img2speech"]["nothing"] <= 1
    command = ("eval", "img2speech", "--data", spoken, "-o", tmp_path / "c", "--card", *options)
    code, _, err = mmx_in_process(*command)
    assert code == 2 and b"is not trained, and has no card" in err and not (tmp_path / "c").exists()


def test_tags_are_measured_by_what_is_drawn(mmx_in_process, tmp_path: Path) -> None:
    """CLAP's points lie in a space of their own: pictures are sought by what the decoder is given."""
    encoder, decoder = tiny.clap(tmp_path / "clap"), "+".join(map(str, tiny.kandinsky(tmp_path / "kandinsky")))
    options = ("--bridge", "tags", "--encoder", encoder, "--decoder", decoder)
    pairs = pair_folder(tmp_path / "pairs", 60)
    result = measured(mmx_in_process, tmp_path / "r", "sound2img", pairs, "--split", "train", "--limit", 3, *options)
    assert len(result["retrieval"]) == 3 and result["data"]["train"]["pairs"] == 3


def test_the_spread_of_a_set_is_the_mean_distance_within_its_groups() -> None:
    from mmx.evaluation.metrics import spread

    right, up = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    features = torch.stack([right, up, right, right * 2, up])
    # of the first group two that are at right angles, of the second two that point the same way, of the third only one
    assert spread(features, torch.tensor([0, 0, 1, 1, 2])) == pytest.approx(2**0.5 / 2)
    assert math.isnan(spread(features, torch.arange(5)))


def test_changed_sounds_are_what_they_are_said_to_be() -> None:
    from mmx.evaluation.changed import over_a_telephone, resampled, with_rumble
    from mmx.media.audio import Waveform

    time = np.arange(16_000) / 16_000
    tones = [np.sin(2 * np.pi * hertz * time).astype(np.float32) * 0.3 for hertz in (1000, 6000)]
    wave = Waveform(tones[0] + tones[1], 16_000)
    inside = slice(1000, -1000)
    assert np.abs(over_a_telephone(wave).samples - tones[0])[inside].max() < 0.01
    assert np.abs(resampled(wave).samples - wave.samples)[inside].max() < 0.01
    spectrum = np.abs(np.fft.rfft(with_rumble(wave).samples)) / 8000
    assert spectrum[[1000, 6000]] == pytest.approx([0.015, 0.015], rel=1e-3) and spectrum[12] > 5 * 0.015
