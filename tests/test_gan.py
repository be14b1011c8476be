"""The decoder that draws in one step: its training on a few pictures, its folder, and that it follows its
conditioning.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from mmx.bridges.base import BridgeConfig
from mmx.bridges.image_encoders import open_image_encoder
from mmx.bridges.sound import SoundBridge
from mmx.data.photos import Photos
from mmx.decoders.base import fingerprint
from mmx.decoders.gan import GanDecoder, save_gan_decoder
from mmx.decoders.horizon import Horizon
from mmx.decoders.teacher import Teacher
from mmx.errors import ModelError, UsageError
from mmx.models.store import Located, seal
from mmx.nets.generator import Generator
from mmx.spaces.joint import open_joint
from mmx.training.decoders import gan_stages
from mmx.training.decoders.axes import colour_axes, discriminants, regression
from mmx.training.decoders.gan import GanTask, settle
from mmx.training.decoders.gan_config import GeneratorConfig
from mmx.training.decoders.gan_stages import GanRecipe, train_gan_decoder
from mmx.training.decoders.gaze import NEIGHBOURS, neighbours
from mmx.training.decoders.space import to_images, to_pixels
from mmx.training.decoders.views import View
from mmx.training.engine.checkpoint import load_state
from mmx.training.engine.loop import Run, parameter_groups
from tests.debug import LABELS
from tests.small_gan import (
    CONFIG,
    LAYOUT,
    LOOP,
    SEMANTIC,
    SIZE,
    SPACE,
    coloured_photos,
    layouts,
    random_efficientnet,
    small_task,
    small_teacher,
)


def cells(pixels: torch.Tensor) -> torch.Tensor:
    return F.adaptive_avg_pool2d(pixels, 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Generator, dict[str, float], dict[str, float]]:
    """A generator trained on eight pictures, and val before and after."""
    task = small_task()
    before = task.validate(task.module)
    run = Run(task, LOOP, tmp_path_factory.mktemp("gan"))
    after = run.fit(quiet=True)
    generator = run.averaged().generator
    settle(generator, task.data.embeds[0])
    return generator, before, after


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("decoder")
    save_gan_decoder(path, trained[0], small_teacher(), name="small/embedding")
    return path


def test_training_draws_the_colours_of_its_pictures(trained):
    _, before, after = trained
    assert after["colour_l1"] < before["colour_l1"] / 2


def test_colours_and_layout_follow_the_conditioning(trained):
    generator = trained[0]
    photos = to_pixels(coloured_photos().pixels)
    semantic = torch.eye(SEMANTIC)[[k % 2 for k in range(len(photos))]] * SEMANTIC**0.5
    noise = torch.randn(len(photos), CONFIG.generator.noise, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drawn = generator(noise, torch.cat((semantic, layouts(photos)), 1))
    distances = (cells(drawn)[:, None] - cells(photos)[None]).abs().mean((2, 3, 4))  # (drawn, photo)
    assert (distances.argmin(1) == torch.arange(len(photos))).all()


def test_noise_matters(trained):
    generator = trained[0]
    conditioning = torch.cat(
        (torch.eye(SEMANTIC)[:1] * SEMANTIC**0.5, layouts(to_pixels(coloured_photos(1).pixels))), 1
    )
    noise = torch.randn(16, CONFIG.generator.noise, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert generator(noise, conditioning.expand(16, -1)).std(0).mean() > 0.02


def test_resumed_is_bit_exact(tmp_path):
    Run(small_task(), replace(LOOP, max_steps=2), tmp_path / "whole").fit(quiet=True)
    config = replace(LOOP, max_steps=2)
    first = Run(small_task(), config, tmp_path / "halves")
    first._one_step()
    first.save()
    torch.manual_seed(99)  # what another process would have drawn meanwhile
    Run(small_task(), config, tmp_path / "halves").fit(quiet=True)
    whole, halves = (load_state(tmp_path / name)[0] for name in ("whole", "halves"))
    for group in whole:
        for name, value in whole[group].items():
            assert torch.equal(value, halves[group][name]), f"{group}: {name}"


def test_a_critic_learns_at_its_own_rate():
    module = nn.ModuleDict({"critic": nn.Linear(2, 2), "generator": nn.Linear(2, 2)})
    usual, own = parameter_groups(module, (("critic.", 0.5),))
    assert [id(p) for p in own["params"]] == [id(p) for p in module["critic"].parameters()] and own["scale"] == 0.5
    assert [id(p) for p in usual["params"]] == [id(p) for p in module["generator"].parameters()]
    assert usual["scale"] == 1.0


def test_rates_are_those_of_the_first_steps(tmp_path):
    task = small_task()
    before = {name: value.clone() for name, value in task.module.named_parameters()}
    run = Run(task, replace(LOOP, warmup=0, lr=1e-3), tmp_path)
    run._one_step()
    # Adam's first step is the rate's length in each coordinate that has a gradient
    moved = {name: (value - before[name]).abs().max().item() for name, value in task.module.named_parameters()}
    assert moved["generator.colours.weight"] == pytest.approx(1e-3, rel=1e-2)
    assert moved["critic.heads.0.key.weight"] == pytest.approx(0.5e-3, rel=1e-2)


def test_gradients_of_both_players_are_kept_apart(monkeypatch):
    """Fooling the critic moves no critic, and the critic's loss moves no generator."""
    task, found = small_task(), []
    batch = task.batch(8, torch.Generator().manual_seed(0))
    for hidden in ("_generator_terms", "_critic_loss"):
        task.module.zero_grad(set_to_none=True)
        with monkeypatch.context() as patch:
            nothing = {"_generator_terms": {}, "_critic_loss": (torch.zeros(()), 0.0, 0.0)}[hidden]
            patch.setattr(task, hidden, lambda *_, nothing=nothing: nothing)
            task.loss(batch, torch.Generator().manual_seed(1))[0].backward()
        found.append({name.split(".")[0] for name, p in task.module.named_parameters() if p.grad is not None})
    assert found == [{"critic"}, {"generator"}]


def test_folder_draws_the_same_alone_and_among_others(folder):
    decoder = GanDecoder.load(folder)
    targets = decoder.targets(to_images(to_pixels(coloured_photos().pixels)))

    def draw(conditioning, seeds):
        return decoder.decode(conditioning, generators=[torch.Generator().manual_seed(s) for s in seeds])

    together = [picture.tobytes() for picture in draw(targets, range(8))]
    assert together == [draw(targets[k : k + 1], [k])[0].tobytes() for k in range(8)]
    assert draw(targets[:1], [5])[0].tobytes() != together[0]
    assert not any(p.requires_grad for p in decoder.net.parameters()) and not decoder.net.training


def test_folder_says_what_it_is(folder, tmp_path):
    decoder = GanDecoder.load(folder)
    assert decoder.spec.shape == (SEMANTIC + LAYOUT,) and decoder.defaults == {"steps": 1, "size": 16}
    with pytest.raises(UsageError, match="--steps 4"):
        decoder.decode(torch.zeros(1, SEMANTIC + LAYOUT), generators=[torch.Generator()], steps=4)
    with pytest.raises(ModelError, match="generator"):
        GanDecoder.load(tmp_path)


def test_a_taken_teacher_keeps_its_space(folder, tmp_path, trained):
    save_gan_decoder(
        tmp_path, trained[0], Teacher.load(folder / "teacher"), name="x", teacher_folder=folder / "teacher"
    )
    assert GanDecoder.load(tmp_path).spec.fingerprint == GanDecoder.load(folder).spec.fingerprint


def test_a_space_is_that_of_pictures_and_another_text_tower_leaves_it(folder, tmp_path):
    """Bridges carry the digest of what embeds pictures; of a teacher that reads texts otherwise they stay valid."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    teacher = Teacher.load(copy / "teacher")
    with torch.no_grad():
        teacher.net.logit_scale += 1
        for weight in teacher.net.text_encoder.parameters():
            weight += 1
    teacher.save(copy / "teacher")
    (copy / "teacher" / "text.json").write_text("{}")
    with pytest.raises(ModelError, match=r"text\.safetensors can't be read"):
        GanDecoder.load(copy)
    Horizon(torch.eye(2, teacher.net.dim), 0.5).save(copy / "teacher")
    before, after = GanDecoder.load(folder).spec, GanDecoder.load(copy).spec
    assert before.fingerprint == after.fingerprint == open_image_encoder(Located("copy", copy)).fingerprint
    spaces = [open_joint(Located(at.name, at), None, "cpu") for at in (folder, copy)]
    assert spaces[0].fingerprint != spaces[1].fingerprint  # texts lie elsewhere
    # a bridge of a version that counted the whole teacher
    replace(before, fingerprint=fingerprint(folder, ("teacher",))).require(before, bridge="of before")


@pytest.mark.parametrize("part", ["semantic.weight", "layout.bias", "image_encoder"])
def test_a_space_is_another_where_anything_that_embeds_pictures_is(folder, tmp_path, part):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    teacher = Teacher.load(copy / "teacher")
    with torch.no_grad():
        next(value for name, value in teacher.net.named_parameters() if name.startswith(part)).add_(1)
    teacher.save(copy / "teacher")
    with pytest.raises(ModelError, match="was trained for"):
        GanDecoder.load(folder).spec.require(GanDecoder.load(copy).spec, bridge="x")


def test_fixed_layout_survives_its_folder_and_tells_grey_from_colour(tmp_path):
    teacher = small_teacher()
    teacher.save(tmp_path)
    again = Teacher.load(tmp_path)
    pixels = torch.stack([torch.full((3, 16, 16), value) for value in (-0.9, 0.0, 0.9)])
    parts = [t.net.encode_image(pixels)[:, SEMANTIC:] for t in (teacher, again)]
    torch.testing.assert_close(*parts, rtol=1e-2, atol=1e-2)
    unit = F.normalize(parts[1], dim=1)
    assert unit[0] @ unit[2] < unit[0] @ unit[1] < 0.99


def test_neighbours_are_of_the_same_label_and_nearest():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(40, 6, generator=generator), torch.randint(0, 3, (40,), generator=generator)
    found = neighbours(features, labels, 4)
    unit = F.normalize(features - features.mean(0), dim=1)
    for k in range(40):
        likeness = [(float(unit[k] @ unit[j]), j) for j in range(40) if labels[j] == labels[k]]
        assert set(found[k].tolist()) == {j for _, j in sorted(likeness, reverse=True)[:4]}
    few = neighbours(features[:3], torch.zeros(3), NEIGHBOURS)
    assert few.shape == (3, NEIGHBOURS) and set(few[0].tolist()) == {0, 1, 2}


def test_axes_find_what_tells_labels_apart():
    """Labels differ in one faint direction among loud ones."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 2
    loud = torch.randn(400, 9, generator=generator) * 3
    faint = 4 * labels[:, None] + 0.1 * torch.randn(400, 1, generator=generator)
    found = discriminants(torch.cat((loud, faint), 1), labels, 1)
    value = found(torch.cat((loud, faint), 1))[:, 0]
    assert (value[labels == 0].mean() - value[labels == 1].mean()).abs() > 4 * value[labels == 0].std()


def test_regression_recovers_a_linear_map():
    generator = torch.Generator().manual_seed(0)
    x, matrix = torch.randn(200, 5, generator=generator), torch.randn(5, 3, generator=generator)
    found = regression(x + 3, x @ matrix, penalty=1e-6)
    torch.testing.assert_close(found.matrix, matrix, rtol=1e-3, atol=1e-3)


def test_colour_axes_say_how_far_from_grey():
    weight, bias = colour_axes(to_pixels(coloured_photos(64).pixels), 2, 6)
    assert weight.shape == (6, 12) and weight[-1].abs().max() == 0 and bias[-1] == 1


def test_a_view_without_strength_changes_nothing_and_pairs_are_seen_alike():
    pixels = torch.rand(4, 3, 16, 16) * 2 - 1
    generator = torch.Generator().manual_seed(0)
    torch.testing.assert_close(View.draw(4, 16, 0.0, generator)(pixels), pixels)
    view = View.draw(4, 16, 1.0, generator)
    assert not torch.equal(view(pixels), pixels)
    items = torch.tensor([2, 0])
    torch.testing.assert_close(view.pick(items)(pixels[items]), view(pixels)[items])


def test_a_cropped_view_is_the_part_that_pillow_cuts_out():
    photos = to_pixels(coloured_photos(1).pixels)
    photos = F.interpolate(photos, size=(64, 64), mode="bilinear")
    view = View.draw(1, 64, 0.0, torch.Generator().manual_seed(3), 0.75)
    part, top, left = (view.crop[0] * 64).tolist()
    assert part > 50 and min(top, left) > 1  # not all of it
    box = (left, top, left + part, top + part)
    (picture,) = to_images(photos)
    wanted = to_pixels(torch.tensor(np.asarray(picture.resize((48, 48), Image.Resampling.BILINEAR, box)))[None])
    assert (view(photos) - wanted).abs().mean() < 0.01 < (photos[:, :, :48, :48] - wanted).abs().mean()
    assert view.pick(torch.tensor([0]))(photos).shape == (1, 3, 48, 48)


def test_a_grown_generator_draws_as_before_and_its_new_channels_learn(trained):
    first = trained[0]
    sizes = first.sizes | {"widths": (24, 16, 12), "refined": 2}
    net = Generator(**sizes)
    net.grow_from(first)
    noise, conditioning = torch.randn(4, first.noise), torch.randn(4, SEMANTIC + LAYOUT)
    with torch.no_grad():
        assert torch.equal(net.eval()(noise, conditioning), first.eval()(noise, conditioning))
    assert any(p.requires_grad for p in net.parameters())
    net.train()(noise, conditioning).square().mean().backward()
    reading = net.levels[0].conv.weight.grad[:, 16:]  # of the first level's new inputs
    assert reading.abs().min() > 0 and net.refinements[0].last.weight.grad.abs().max() > 0


@pytest.mark.parametrize(("name", "value"), [("dim", 5), ("noise", 5), ("widths", (8, 16, 8)), ("widths", (16, 16))])
def test_what_is_no_larger_takes_no_weights(trained, name, value):
    with pytest.raises(ValueError, match=name if name != "widths" else "fit"):
        Generator(**trained[0].sizes | {name: value}).grow_from(trained[0])


def test_training_goes_on_in_a_larger_generator(photos, folder, tmp_path):
    """--init with larger sizes: what draws at first is what --init drew; one of another size is refused."""
    larger = replace(CONFIG, generator=replace(CONFIG.generator, widths=(20, 8, 8), refined=1))
    recipe = GanRecipe(
        tmp_path, tmp_path / "run", steps={"space": 1, "gan": 1}, quiet=True, space=SPACE, sizes=larger, start=folder
    )
    decoder = train_gan_decoder(replace(recipe, teacher=folder / "teacher"))
    assert decoder.net.sizes["widths"] == (20, 16, 8)  # at each level the wider
    with pytest.raises(ModelError, match="has levels 3"):
        train_gan_decoder(replace(recipe, run=tmp_path / "x", sizes=replace(larger, generator=GeneratorConfig())))


def test_settled_statistics_are_those_of_the_weights():
    generator = Generator(**asdict(CONFIG.generator))
    for norm in (m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.running_mean.fill_(7.0)
    embeds = torch.randn(8, CONFIG.generator.dim)
    settle(generator, embeds)
    noise = torch.randn(512, CONFIG.generator.noise)
    seeds = generator.seed(torch.cat((noise, embeds.repeat(64, 1)), 1)).unflatten(1, (-1, 4, 4))
    torch.testing.assert_close(generator.norm.norm.running_mean, seeds.mean((0, 2, 3)), atol=0.1, rtol=0.1)
    assert not generator.training


@pytest.fixture()
def photos(monkeypatch) -> Photos:
    """What the stages read and look with, instead of shards and the package."""
    found = coloured_photos()
    found.meta[:] = [meta | {"split": "val" if k > 5 else "train"} for k, meta in enumerate(found.meta)]
    monkeypatch.setattr(gan_stages, "load_photos", lambda *_: found)
    monkeypatch.setattr(gan_stages, "load_efficientnet", random_efficientnet)
    return found


def test_stages_train_on_another_device(photos, tmp_path, second_device):
    sizes = {"steps": {"space": 1, "gan": 1}, "space": SPACE, "sizes": CONFIG}
    decoder = train_gan_decoder(GanRecipe(tmp_path, tmp_path / "run", device=second_device, quiet=True, **sizes))
    assert decoder.spec.shape == (SEMANTIC + LAYOUT,) and decoder.device.type == "cpu"


def test_all_stages_from_shards_to_a_decoder(photos, tmp_path, monkeypatch):
    """The command's own code on tiny sizes: it draws, a second call resumes, and another run goes on from its
    weights.
    """
    recipe = GanRecipe(
        tmp_path, tmp_path / "run", steps={"space": 2, "gan": 2}, quiet=True, space=SPACE, sizes=CONFIG, notes="Blocks."
    )
    decoder = train_gan_decoder(recipe)
    (picture,) = decoder.decode(
        decoder.targets(to_images(to_pixels(photos.pixels[:1]))), generators=[torch.Generator()]
    )
    assert picture.size == (SIZE, SIZE)
    card = (tmp_path / "run" / "decoder" / "README.md").read_text()
    assert "EfficientNet-lite0" in card and "Apache-2.0" in card and "colour_l1" in card
    weights = (tmp_path / "run" / "decoder" / "generator.safetensors").read_bytes()
    monkeypatch.setattr(GanTask, "loss", None)  # nothing is left to train
    train_gan_decoder(recipe)
    assert (tmp_path / "run" / "decoder" / "generator.safetensors").read_bytes() == weights
    with pytest.raises(UsageError, match="--init"):
        train_gan_decoder(replace(recipe, start=tmp_path / "run" / "decoder"))
    kept = {}
    monkeypatch.setattr(
        gan_stages, "Run", lambda task, *_, **__: kept.update({task.name: task.module}) or _Nothing(task.module)
    )
    train_gan_decoder(replace(recipe, run=tmp_path / "next", start=tmp_path / "run" / "decoder"))
    torch.testing.assert_close(kept["gan"].generator.colours.weight, decoder.net.colours.weight)
    torch.testing.assert_close(kept["space"].space.semantic.weight, decoder.teacher.net.semantic.weight)


def test_goes_on_from_a_decoder_that_another_family_trained(photos, folder, tmp_path):
    """It has a teacher, whose towers are taken, and no generator."""
    shutil.copytree(folder / "teacher", tmp_path / "other" / "teacher")
    recipe = GanRecipe(tmp_path, tmp_path / "run", quiet=True, space=SPACE, sizes=CONFIG, start=tmp_path / "other")
    decoder = train_gan_decoder(replace(recipe, steps={"space": 1, "gan": 1}))
    towers = (decoder.teacher.net.image_encoder, Teacher.load(folder / "teacher").net.image_encoder)
    for own, known in zip(*(tower.parameters() for tower in towers), strict=True):
        torch.testing.assert_close(own, known, atol=0.01, rtol=0.01)  # a step away


class _Nothing:
    """A run of no steps."""

    digest = ""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def fit(self, **_) -> None:
        pass

    def averaged(self) -> nn.Module:
        return self.module


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("speech", "--family", "gan"), b"speech has no such family"),
        (("face", "--family", "gan"), b"wants --teacher"),
        (("face", "--family", "gan", "--space-steps", "3", "--teacher", "FOLDER"), b"face has no such stage"),
        (("image", "--family", "vae"), b"diffusion or gan"),
        (("image", "--gan-steps", "3"), b"image has no such stage"),
        (("image", "--family", "gan", "--codec-steps", "3"), b"--space-steps, --gan-steps"),
        (("image", "--init", "FOLDER"), b"family diffusion takes none"),
        (("speech", "--teacher", "FOLDER"), b"family units takes none"),
        (("image", "--family", "gan", "--init", "nowhere"), b"no decoder folder"),
    ],
)
def test_options_of_another_family_are_refused(mmx_in_process, folder, tmp_path, arguments, said):
    words = [folder if word == "FOLDER" else word for word in arguments]
    code, _, err = mmx_in_process("train-decoder", *words, "--data", tmp_path, "-o", tmp_path / "run")
    assert code == 2 and said in err


@pytest.fixture(scope="module")
def bridge(folder, tmp_path_factory) -> Path:
    """A random sound bridge for the trained decoder."""
    path = tmp_path_factory.mktemp("bridge")
    torch.manual_seed(0)
    spec, prior = GanDecoder.load(folder).spec.as_dict(), {"width": 16, "depth": 1}
    config = BridgeConfig("sound2img", spec, labels=LABELS, channels=(8, 8), prior=prior, prior_steps=2)
    SoundBridge(config).half().save_pretrained(path)
    seal(path)
    return path


def test_commands_draw_with_it(mmx_in_process, bark, folder, bridge, tmp_path):
    seal(folder)
    models = ("--bridge", bridge, "--decoder", folder)
    for name in ("a.png", "b.png"):
        code, _, err = mmx_in_process("sound2img", bark, *models, "-o", tmp_path / name)
        assert code == 0, err.decode()
    pictures = [Image.open(tmp_path / name) for name in ("a.png", "b.png")]
    assert pictures[0].size == (SIZE, SIZE) and pictures[0].tobytes() == pictures[1].tobytes()
    code, _, err = mmx_in_process("sound2img", bark, *models, "-o", tmp_path / "c.png", "--steps", 4)
    assert code == 2 and b"one step" in err and not (tmp_path / "c.png").exists()
    code, _, err = mmx_in_process("text2img", "a dog", *models, "-o", tmp_path / "d.png")
    assert code == 0, err.decode()


def test_a_conditioning_that_does_not_fit_is_refused(folder):
    with pytest.raises(UsageError, match="listens to"):
        GanDecoder.load(folder).decode(torch.zeros(1, 5), generators=[torch.Generator()])
