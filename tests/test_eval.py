"""`mmx eval` on anybody's pairs, and the metrics against known answers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_data import pair_folder


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
    assert mmx_in_process("eval", "img2speech", "--data", data, "-o", tmp_path / "r")[0] == 2


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
    from mmx.evaluation.img2speech import named, word_errors

    concepts = {"a tabby": "cat", "a lynx": "cat", "a pug": "dog", "a sock": None}
    counted = named(["a tabby", "a lynx", "a sock", None], ["a tabby", "a tabby", "a pug", "a sock"], concepts)
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
