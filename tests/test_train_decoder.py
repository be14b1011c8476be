"""The stages of decoders and of the judge: on another device, and after stages that were trained since."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from mmx.data.photos import Photos, load_photos
from mmx.errors import UsageError
from mmx.evaluation import judge as judging
from mmx.evaluation.judge import train_judge
from mmx.nets.speech import speech_mel
from mmx.training.decoders import speech
from mmx.training.decoders.speech import Clips, UnitTask, VocoderTask
from mmx.training.decoders.stages import Stages
from mmx.training.decoders.unclip import FAMILIES, DecoderRecipe, Family, train_decoder
from mmx.training.engine.checkpoint import load_state, states
from mmx.training.engine.loop import LoopConfig
from mmx.training.teachers.efficientnet import POOLED
from tests.debug import CODEC, DENOISER, FACE, FACE_CODEC, SPACE, UNITS, VOCODER
from tests.line_task import same
from tests.training_data import two_concepts, two_kinds_of_people

SMALL = LoopConfig(2, 4, 1e-3, validate_steps=2, save_seconds=1e9)


def small(name: str) -> Family:
    space, codec = {"image": (SPACE, CODEC), "face": (FACE, FACE_CODEC)}[name]
    schedules = {stage: SMALL for stage in FAMILIES[name].schedules}
    return replace(FAMILIES[name], space=space, codec=codec, denoiser=DENOISER, schedules=schedules)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "image": two_concepts(tmp_path_factory.mktemp("images")),
        "face": two_kinds_of_people(tmp_path_factory.mktemp("faces")),
    }


def recipe(data: Path, run: Path, name: str, **changes) -> DecoderRecipe:
    return DecoderRecipe(data, run, small(name), quiet=True, **changes)


def stage_states(run: Path) -> dict[str, dict]:
    return {folder.name: load_state(folder)[0]["module"] for folder in run.iterdir() if states(folder)}


@pytest.mark.parametrize("name", ["image", "face"])
def test_every_stage_of_a_picture_decoder_works_on_another_device(
    photos, second_device: str, tmp_path: Path, name: str
) -> None:
    """Training, val, previews, and what lies between the stages; the weights are those of the CPU, but for rounding."""
    train_decoder(recipe(photos[name], tmp_path / "there", name, device=second_device))
    train_decoder(recipe(photos[name], tmp_path / "here", name, device="cpu"))
    there, here = stage_states(tmp_path / "there"), stage_states(tmp_path / "here")
    assert set(there) == set(here) == {"space", "codec", "denoiser", "finish"}
    for key, value in here["space"].items():
        torch.testing.assert_close(there["space"][key], value, atol=2e-2, rtol=2e-2, msg=key)
    assert (tmp_path / "there" / "denoiser" / "preview.png").exists()
    # and in a space that is there already
    teacher = tmp_path / "here" / "decoder" / "teacher"
    train_decoder(recipe(photos[name], tmp_path / "again", name, device=second_device, teacher=teacher))


class _Speech:
    """A recipe of small stages."""

    quiet = True

    def __init__(self, run: Path, device: str) -> None:
        self.run, self.device = run, device

    def schedule(self, stage: str) -> LoopConfig:
        return replace(SMALL, device=self.device, bf16=False)


def clips(count: int, seed: int) -> Clips:
    generator = torch.Generator().manual_seed(seed)
    waves = [0.1 * torch.randn(16_000 + 500 * k, generator=generator) for k in range(count)]
    mels = [speech_mel(wave[None])[0].half() for wave in waves]
    return Clips([wave.half() for wave in waves], mels, torch.arange(count) % 2, [{} for _ in waves])


def test_both_stages_of_a_speech_decoder_work_on_another_device(
    second_device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With waveforms compared as they are: torch.stft turns its result in place, of which the stand-in's tensors do not
    hear.
    """
    monkeypatch.setattr(speech, "spectral_distance", lambda a, b: (a - b).abs().mean())
    monkeypatch.setattr(speech, "speech_mel", lambda wave: wave)
    stages = Stages(_Speech(tmp_path, second_device), {})
    codec = stages.train(UnitTask(clips(4, 0), clips(2, 1), UNITS))
    stages.train(VocoderTask(clips(4, 0), clips(2, 1), codec, VOCODER))
    assert set(stages.metrics(("units", "vocoder", "none"))["vocoder"]) == {"val_stft"}
    assert (tmp_path / "vocoder" / "preview.wav").exists()


def test_later_stages_start_again_when_an_earlier_one_was_trained_since(photos, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_decoder(recipe(photos["image"], run, "image"))
    before = stage_states(run)
    train_decoder(recipe(photos["image"], run, "image"))
    assert all(same(value, before[stage]) for stage, value in stage_states(run).items())  # nothing was trained
    train_decoder(recipe(photos["image"], run, "image", steps={"codec": 3}))
    after = stage_states(run)
    assert same(after["space"], before["space"])
    assert not any(same(after[stage], before[stage]) for stage in ("codec", "denoiser", "finish"))
    upstream = json.loads((states(run / "finish")[-1] / "state.json").read_text())["upstream"]
    assert set(upstream) == {"space", "codec", "denoiser"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made, other: {"data": other}, "data of sha256"),
        (lambda made, other: {"teacher": made / "decoder" / "teacher"}, "--teacher null, not with --teacher"),
        (lambda made, other: {"seed": 1}, "--seed 0, not with --seed 1"),
    ],
)
def test_another_recipe_for_a_decoder_is_refused(photos, tmp_path: Path, change: Callable, said: str) -> None:
    first = recipe(photos["image"], tmp_path / "run", "image")
    train_decoder(first)
    other = two_concepts(tmp_path / "other", seed=1)
    with pytest.raises(UsageError) as refused:
        train_decoder(replace(first, **change(tmp_path / "run", other)))
    assert said in refused.value.message


def test_a_judge_on_a_frozen_networks_eyes_names_by_what_they_see(photos, monkeypatch, tmp_path: Path) -> None:
    """Eyes that see the mean colour: the labels are made of it, so the head has to name every photo."""
    everything = load_photos(photos["image"], 64)
    bright = everything.pixels.float().mean((1, 2, 3))
    order, metas = bright.argsort(), [dict(meta) for meta in everything.meta]
    for rank, number in enumerate(order.tolist()):
        metas[number] |= {"tone": "dark" if rank < len(order) // 2 else "light", "split": "train"}
    metas[0]["split"] = metas[-1]["split"] = "val"

    class Eyes(nn.Module):
        """Stands for EfficientNet: one feature says how bright a picture is."""

        head = SimpleNamespace(conv=nn.Conv2d(1, 1, 1))

        def taps(self, pixels: Tensor) -> list[Tensor]:
            return [pixels]

        def pool(self, last: Tensor) -> Tensor:
            level = last.mean((1, 2, 3))[:, None]
            return torch.cat((level, torch.full_like(level, 0.1), torch.zeros(len(last), POOLED - 2)), 1)

    asked: list[str] = []
    monkeypatch.setattr(judging, "load_efficientnet", lambda variant: asked.append(variant) or Eyes())
    shown = Photos(everything.pixels, metas)
    options = {"key": "tone", "network": "efficientnet-lite2", "quiet": True}
    judge = train_judge(shown, ["dark", "light"], tmp_path, max_steps=300, **options)
    greys = [Image.new("RGB", (64, 64), (level,) * 3) for level in (0, 255)]
    logits, features = judge(greys)
    assert logits.argmax(1).tolist() == [0, 1] and asked == ["lite2"] and judge.name == "efficientnet-lite2"
    assert features.shape == (2, 256)
    with pytest.raises(UsageError, match="another model"):
        train_judge(shown, ["dark", "light"], tmp_path, max_steps=300, key="tone", quiet=True)
    with pytest.raises(UsageError, match="no such judge"):
        train_judge(shown, ["dark", "light"], tmp_path, network="lite9")


def test_a_judge_is_of_its_photos_and_labels_and_works_on_another_device(
    photos, second_device: str, tmp_path: Path
) -> None:
    everything = load_photos(photos["image"], 64)
    judge = train_judge(everything, ["cat", "dog"], tmp_path, max_steps=2, device=second_device, quiet=True)
    from mmx.training.decoders.space import to_images, to_pixels

    logits, features = judge(to_images(to_pixels(everything.pixels[:3])))
    assert logits.device.type == features.device.type == "cpu" and logits.shape == (3, 2)
    with pytest.raises(UsageError, match="--labels"):
        train_judge(everything, ["dog", "cat"], tmp_path, max_steps=2, quiet=True)
    fewer = Photos(everything.pixels[:-1], everything.meta[:-1])
    with pytest.raises(UsageError, match="data of sha256"):
        train_judge(fewer, ["cat", "dog"], tmp_path, max_steps=2, quiet=True)
