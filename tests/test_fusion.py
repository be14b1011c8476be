"""Bridges with two sources: what they make of both, of each, and what each is worth."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from mmx.nets.fusion import Fusion
from mmx.nets.prior import EmbeddingPrior, alpha_bar
from mmx.training.bridges.fusion import LOST
from mmx.training.losses import infonce
from tests.conftest import training
from tests.small_data import pair_folder, png


def test_at_first_every_part_counts_the_same() -> None:
    torch.manual_seed(0)
    fusion, parts = Fusion(6, 2).eval(), torch.randn(3, 2, 6) * torch.tensor([1.0, 100.0])[:, None]
    there = torch.tensor([[True, True], [True, False], [False, True]])
    unit = (parts / parts.norm(dim=-1, keepdim=True)).detach().numpy()
    mean = (unit[0, 0] + unit[0, 1]) / 2
    naive = np.stack([mean / np.linalg.norm(mean), unit[1, 0], unit[2, 1]])
    assert np.allclose(fusion(parts, there).detach().numpy(), naive, atol=1e-6)
    changed = parts.clone()
    changed[1, 1] += 5  # of a part that is not there nothing is seen
    nn.init.normal_(fusion.mix[-1].weight)
    assert torch.equal(fusion(parts, there)[1:2], fusion(changed, there)[1:2])
    assert not torch.allclose(fusion(parts, there)[0], F.normalize(torch.from_numpy(mean), dim=-1), atol=1e-2)


def alone(lost: float) -> float:
    """Recall at 1 by the harder of two sources alone, after training on both with so much modality dropout."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    classes = F.normalize(torch.randn(32, 16, generator=generator), dim=-1)
    views = torch.randn(2, 16, 24, generator=generator)
    net = nn.ModuleDict({"easy": nn.Linear(24, 16), "hard": nn.Linear(24, 16), "fusion": Fusion(16, 2, 64)})
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)

    def points(labels: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        easy = net["easy"](classes[labels] @ views[0])
        noise = torch.randn(len(labels), 24, generator=generator)
        hard = net["hard"](classes[labels] @ views[1] + 0.8 * noise)
        return net["fusion"](torch.stack((easy, hard), 1), there)

    for _ in range(250):
        labels, draw = torch.randint(32, (64,), generator=generator), torch.rand(64, generator=generator)
        there = torch.stack((draw >= lost, (draw < lost) | (draw >= 2 * lost)), 1)
        loss = infonce(
            points(labels, there), classes[labels], scale=15.0, positives=(labels[:, None] == labels).float()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    labels = torch.arange(32).repeat(20)
    with torch.no_grad():
        found = points(labels, torch.tensor([[False, True]]).expand(len(labels), -1)) @ classes.T
    return (found.argmax(1) == labels).float().mean().item()


def test_the_harder_source_is_not_forgotten() -> None:
    """Without modality dropout a bridge leans on the easy source, and is lost without it."""
    kept, collapsed = alone(LOST), alone(0.0)
    assert kept > 0.8 and kept > collapsed + 0.1


def test_a_bridge_of_two_sources_is_trained_used_and_reported(
    mmx_in_process, debug_models, tmp_path: Path, bark: Path
) -> None:
    data, run = pair_folder(tmp_path / "pairs", 40), tmp_path / "run"
    command = training("sound2img", data, run, debug_models[1], "--source", "sound+image", steps=3)
    code, _, err = mmx_in_process(*command)
    assert code == 3 and b"hints/" in err
    (data / "hints" / "deep").mkdir(parents=True)
    for number in range(40):
        (data / "hints" / "deep" / f"x{number}.png").write_bytes(png(5 * number))
    code, _, err = mmx_in_process(*command)
    assert code == 0, err.decode()
    assert Image.open(run / "bridge" / "preview.png").width > 64  # val sources through the frozen decoder
    config, measured = (json.loads((run / name).read_text()) for name in ("config.json", "metrics.json"))
    assert config["sources"] == ["sound", "image"]
    val = measured["val"]
    shares = val["val_sound_share"] + val["val_image_share"]
    assert shares == pytest.approx(val["val_recall_at_1"] - val["val_chance"], abs=1e-6)
    assert "val_sound_only_recall_at_1" in (run / "README.md").read_text()
    options = ("--bridge", run, "--decoder", debug_models[1], "--steps", 2)
    (tmp_path / "hint.png").write_bytes(png(77))
    for name, more in (("a", ()), ("b", ("--image", tmp_path / "hint.png"))):
        code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / f"{name}.png", *options, *more)
        assert code == 0, err.decode()
    a, b = (Image.open(tmp_path / f"{name}.png").tobytes() for name in "ab")
    assert a != b
    assert mmx_in_process("reproduce", tmp_path / "b.png", bark, tmp_path / "hint.png", *options[:4])[0] == 0


def test_pictures_beside_sounds_from_a_manifest(tmp_path: Path) -> None:
    from mmx.data.manifest import read_manifest
    from mmx.errors import InputError

    pair_folder(tmp_path / "pairs", 3)
    rows = [
        {
            "source": f"pairs/audios/deep/x{k}.wav",
            "source2": f"pairs/images/deep/x{2 - k}.png",
            "target": f"pairs/images/deep/x{k}.png",
        }
        for k in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    manifest = read_manifest(str(path), "sound2img")
    assert [item.read() for item in manifest.second_sources.items] == [png(9 * (2 - k)) for k in range(3)]
    del rows[1]["source2"]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match="some rows have a source2"):
        read_manifest(str(path), "sound2img")


def test_the_prior_as_a_loss_against_numpy() -> None:
    """Squared error of v = alpha noise - sigma x (Salimans & Ho 2022), for a network that answers zero, at its own
    draws.
    """
    prior = EmbeddingPrior(5, 4, 8, 1).eval()
    nn.init.zeros_(prior.out[-1].weight)
    nn.init.zeros_(prior.out[-1].bias)
    prior.mean.fill_(0.5)
    prior.std.fill_(2.0)
    targets, conditions = torch.randn(7, 5), F.normalize(torch.randn(7, 4), dim=-1)
    ours = prior.loss(targets, conditions, torch.Generator().manual_seed(3)).item()
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(7, 5, generator=generator).numpy()
    t = (np.arange(7) + torch.rand(7, generator=generator).numpy()) / 7
    signal = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    assert np.allclose(signal, alpha_bar(torch.from_numpy(t)).numpy(), atol=1e-4)
    clean = (targets.numpy() - 0.5) / 2.0
    v = np.sqrt(signal)[:, None] * noise - np.sqrt(1 - signal)[:, None] * clean
    assert ours == pytest.approx((v**2).mean(), rel=1e-3)


def test_an_encoder_is_taught_by_the_prior_alone(mmx_in_process, debug_models, tmp_path: Path, bark: Path) -> None:
    data, run = pair_folder(tmp_path / "pairs", 24), tmp_path / "run"
    code, _, err = mmx_in_process(*training("sound2img", data, run, debug_models[1], "--loss", "prior", steps=3))
    assert code == 0, err.decode()
    assert json.loads((run / "config.json").read_text())["prior"] and not (run / "prior").exists()
    options = ("--bridge", run, "--decoder", debug_models[1], "--steps", 2)
    assert mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *options)[0] == 0
