"""Faces that are drawn in one step, in the space of a face decoder that was there before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmx.decoders.face_words import FaceWords
from mmx.decoders.gan import GanDecoder
from mmx.decoders.load import load_decoder
from mmx.decoders.unclip import ImageDecoder
from mmx.errors import ModelError
from mmx.models.store import Located, locate, seal
from mmx.nets.generator import without_repeats
from mmx.training.decoders import gan_stages
from mmx.training.decoders.gan_config import FACES, GanConfig, GeneratorConfig
from mmx.training.decoders.gan_stages import GanRecipe, see, train_gan_decoder
from mmx.training.decoders.space import to_images, to_pixels
from tests.debug import DIM
from tests.small_gan import CONFIG, SIZE, coloured_photos, random_efficientnet

SIZES = GanConfig(
    GeneratorConfig(dim=DIM, noise=4, style=16, widths=(16, 16, 8), refined=1),
    replace(CONFIG.critic, dim=DIM),
    side=32,
    crop=0.75,
    cells=8,
)


@pytest.fixture()
def recipe(monkeypatch, face_models, tmp_path: Path) -> GanRecipe:
    """Eight faces, coloured halves all, and a network of random weights, in place of shards and the package."""
    faces = coloured_photos()
    faces.meta[:] = [
        {"key": str(k), "split": "val" if k > 5 else "train", "age": 20 + 9 * k, "gender": ("female", "male")[k % 2]}
        for k in range(len(faces))
    ]
    asked: list[tuple] = []
    monkeypatch.setattr(gan_stages, "load_photos", lambda *given: asked.append(given) or faces)
    monkeypatch.setattr(gan_stages, "load_efficientnet", random_efficientnet)
    teacher = face_models[1] / "teacher"
    made = GanRecipe(tmp_path, tmp_path / "run", "face", steps={"gan": 2}, quiet=True, teacher=teacher, sizes=SIZES)
    see(made)
    assert asked[0][1:] == (SIZE, "faces")
    return made


def test_it_draws_in_the_space_that_was_there(mmx_in_process, recipe, face_models, tmp_path: Path, low: Path) -> None:
    """Voices' bridges stay valid, texts keep their meaning, and the command draws with it."""
    decoder = train_gan_decoder(recipe)
    folder, before = recipe.run / "decoder", ImageDecoder.load(face_models[1])
    assert decoder.spec.fingerprint == before.spec.fingerprint and decoder.teacher.names_faces
    assert not (folder / "words.safetensors").exists()
    picture = Image.new("RGB", (40, 40), "orange")
    torch.testing.assert_close(decoder.targets([picture]), before.targets([picture]))
    card = (folder / "README.md").read_text()
    assert "# The face decoder" in card and "| gan | likeness |" in card and "EfficientNet-lite0" in card
    voice = ("voice2face", low, "--bridge", face_models[0], "--decoder", folder)
    code, _, err = mmx_in_process(*voice, "-o", tmp_path / "face.png")
    assert code == 0, err.decode()
    assert Image.open(tmp_path / "face.png").size == (SIZE, SIZE)


def test_what_texts_mean_goes_with_the_space(recipe, face_models, tmp_path: Path) -> None:
    import shutil

    own = tmp_path / "own"
    shutil.copytree(face_models[1], own)
    FaceWords(torch.randn(10, DIM), torch.rand(10), torch.zeros(DIM)).save(own)
    train_gan_decoder(replace(recipe, teacher=own / "teacher", steps={"gan": 1}))
    assert (recipe.run / "decoder" / "words.safetensors").read_bytes() == (own / "words.safetensors").read_bytes()


def test_training_makes_faces_that_the_teacher_knows_again(recipe) -> None:
    """What is told of drawn faces comes to be the feature that they were drawn from."""
    longer = replace(recipe, steps={"gan": 40}, sizes=replace(SIZES, guide=30.0))
    found = train_gan_decoder(longer)
    faces = to_pixels(coloured_photos().pixels[:6])
    features = found.targets(to_images(faces))
    pictures = found.decode(features, generators=[torch.Generator().manual_seed(k) for k in range(6)])
    likeness = F.normalize(found.targets(pictures)) @ F.normalize(features).T
    assert likeness.diagonal().mean() > likeness.mean() + 0.03


def test_voices_learn_through_its_first_layer(recipe) -> None:
    """The first layer is linear in the conditioning and sees no noise."""
    decoder = train_gan_decoder(replace(recipe, steps={"gan": 1}))
    seal(recipe.run / "decoder")
    decoder = GanDecoder.load(recipe.run / "decoder")
    one, other = torch.randn(2, 3, DIM)
    first = decoder.first_layer
    torch.testing.assert_close(first(one + other) + first(torch.zeros(3, DIM)), first(one) + first(other))
    noise = torch.zeros(3, decoder.net.noise)
    torch.testing.assert_close(first(one), decoder.net.style[0](torch.cat((noise, one), 1)))


def test_the_recipe_draws_faces_of_128_pixels() -> None:
    assert FACES.generator.size == 128 and FACES.critic.dim == FACES.generator.dim


def test_a_decoder_whose_first_layer_is_not_known_says_so(speech_models) -> None:
    decoder = load_decoder(Located("speech", speech_models[1]), "sound")
    with pytest.raises(ModelError, match="first layer"):
        decoder.first_layer(torch.zeros(1, DIM))


def test_what_repeats_is_taken_out() -> None:
    """Against a naive twin."""
    torch.manual_seed(0)
    x, grid = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 8, 8)
    grid -= grid.mean((2, 3), keepdim=True)
    ours, part = (without_repeats(x + grid.repeat(1, 1, 4, 4), 8, kept) for kept in (0.0, 0.7))
    naive = x.clone()
    for down in range(8):
        for across in range(8):
            same = x[:, :, down::8, across::8]
            naive[:, :, down::8, across::8] = same - same.mean((2, 3), keepdim=True) + x.mean((2, 3), keepdim=True)
    torch.testing.assert_close(ours, naive, atol=1e-5, rtol=0)
    torch.testing.assert_close(part, 0.3 * naive + 0.7 * (x + grid.repeat(1, 1, 4, 4)), atol=1e-5, rtol=0)


def test_the_starters_faces_have_no_grid() -> None:
    """Beside the frequencies around them, those of grids of 2, 4 and 8 pixels hold no more than 1.2 times the power."""
    decoder = load_decoder(locate(None, "voice2face", "decoder"), "image")
    draws = [torch.Generator().manual_seed(k) for k in range(24)]
    raw = torch.stack([F.normalize(torch.randn(decoder.spec.shape, generator=draw), dim=0) for draw in draws])
    pictures = to_pixels(torch.from_numpy(np.stack(decoder.decode(raw * decoder.spec.mean_norm, generators=draws))))
    power = torch.fft.fft2(pictures.mean(1)).abs().square().mean(0)
    around = F.avg_pool2d(F.pad(power[None], (2, 2, 2, 2), "circular"), 5, 1)[0] * 25 - power
    side = len(power)
    for period in (2, 4, 8):
        at = torch.arange(0, side, side // period)
        ratios = (power / around * 24)[at][:, at].flatten()[1:]
        assert ratios.mean() < 1.2
