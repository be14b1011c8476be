"""The space that learns from a frozen network: what both look at, where its axes lie, and what goes on from another."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmx.bridges.image_encoders import TeacherEncoder
from mmx.decoders.teacher import Teacher
from mmx.training.decoders.axes import colour_axes, discriminants, principal
from mmx.training.decoders.mixed import kept_shares, mixed
from mmx.training.decoders.seen_space import Example, SeenSpaceTask
from mmx.training.decoders.space import build_space, random_crops, to_images, to_pixels
from mmx.training.engine.loop import LoopConfig, Run
from mmx.training.teachers.features import pooled
from tests.small_gan import LAYOUT, SEMANTIC, SIZE, SPACE, coloured_photos, random_efficientnet, small_teacher

SEEN_AT = 32


@pytest.fixture(scope="module")
def task() -> SeenSpaceTask:
    """Dogs are dark, in two ways; a random network looks at them."""
    photos, net = coloured_photos(16), random_efficientnet()
    photos.pixels[::2] //= 4
    features = pooled(net, photos.pixels, SEEN_AT)
    return SeenSpaceTask(photos, photos, Example(net, (features, features), side=SEEN_AT), SPACE)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_it_points_where_the_frozen_network_does_and_its_layout_stays(task, tmp_path):
    before, layout = task.validate(task.module), task.module.space.layout.weight.clone()
    run = Run(task, LoopConfig(60, 16, 5e-3, warmup=1, ema=0.5, bf16=False, validate_steps=1000), tmp_path)
    after = run.fit(quiet=True)
    assert after["seen_cosine"] > before["seen_cosine"] + 0.3 and after["synset_top1"] > 0.8, (before, after)
    assert torch.equal(run.averaged().space.layout.weight, layout)
    torch.testing.assert_close(layout, colour_axes(to_pixels(task.photos.pixels), SPACE.layout_cells, LAYOUT)[0])


def test_both_look_at_the_very_same_pixels(task, monkeypatch):
    """What the frozen network is shown is what the space is shown: cut, mirrored and mixed."""
    shown = []
    monkeypatch.setattr(task, "shown", lambda pixels: (shown.append(pixels), type(task).shown(task, pixels))[1])
    monkeypatch.setattr(
        type(task.module.space),
        "feature_maps",
        lambda net, pixels: (shown.append(pixels), net.image_encoder(pixels))[1],
    )
    batch = task.batch(8, generator())
    task.loss(batch, generator(1))
    assert torch.equal(shown[0], shown[1])
    assert torch.equal(shown[0], mixed(to_pixels(batch["images"]), generator(1)))
    plain = to_pixels(batch["images"])
    assert all(not torch.equal(a, b) for a, b in zip(shown[0], plain, strict=True))


def test_what_is_shown_is_what_a_plain_look_gives(task):
    """Photos as they are have the targets that were computed of them once."""
    named, rest = task.shown(to_pixels(task.photos.pixels))
    assert F.cosine_similarity(named, task.seen, dim=1).min() > 0.98  # but for bfloat16
    assert rest.shape == (16, task.rest.matrix.shape[1])


def test_shares_are_those_of_mixup_and_of_cutmix():
    count, side = 300, 16
    keep = kept_shares(count, side, generator(3))
    assert keep.shape == (count, 1, side, side) and keep.min() == 0 and keep.max() == 1
    whole, everywhere, square = [], [], []
    for item in keep[:, 0]:
        values = item.unique().tolist()
        (whole if values == [1.0] else everywhere if len(values) == 1 else square).append(item)
    assert min(map(len, (whole, everywhere, square))) > count / 5
    assert all(0.5 <= float(item[0, 0]) < 1 for item in everywhere)
    for item in square:  # what is taken from another is one rectangle, and the smaller part
        rows, columns = (item == 0).any(1), (item == 0).any(0)
        assert torch.equal(item == 0, rows[:, None] & columns[None]) and float(item.mean()) >= 0.4
        for inside in (rows, columns):
            assert inside.int().diff().abs().sum() <= 2


def test_mixed_is_the_weighted_sum_of_neighbours_in_a_batch():
    pixels = to_pixels(coloured_photos(6).pixels)
    found = mixed(pixels, generator(5))
    twin = generator(5)
    views = random_crops(pixels, twin, 0.6, 1.15)
    keep = kept_shares(6, SIZE, twin)
    for k in range(6):
        torch.testing.assert_close(found[k], views[k] * keep[k] + views[k - 1] * (1 - keep[k]))


def test_a_crop_of_more_than_a_side_shows_things_smaller_among_their_mirror_images():
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, :, 12:20, 12:20] = 1.0
    larger, smaller = (random_crops(pixels, generator(), *sides).sum() for sides in ((0.5, 0.5), (1.0, 1.25)))
    assert larger > pixels.sum() * 2 and smaller < pixels.sum()
    torch.testing.assert_close(random_crops(pixels, generator(), 1.0, 1.0), pixels)


def test_axes_turned_toward_known_vectors_undo_any_rotation():
    features, labels = torch.randn(200, 9, generator=generator()), torch.arange(200) % 7
    axes = discriminants(features + 2 * F.one_hot(labels, 9), labels, 4)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=generator(1))).Q
    known = F.normalize(axes(features), dim=1) @ rotation + 0.05 * torch.randn(200, 4, generator=generator(2))
    turned = axes.toward(features, known)
    torch.testing.assert_close(turned.matrix, axes.matrix @ rotation, atol=0.03, rtol=0.05)
    torch.testing.assert_close(turned(features).norm(dim=1), axes(features).norm(dim=1))


def test_principal_directions_have_unit_variance():
    loud = torch.randn(500, 3, generator=generator()) * torch.tensor([9.0, 3.0, 1.0])
    found = principal(loud, 2)
    torch.testing.assert_close(torch.cov(found(loud).T), torch.eye(2), atol=1e-4, rtol=0)
    assert found.matrix[:, 0].abs().argmax() == 0 and found.matrix[:, 1].abs().argmax() == 1


def test_going_on_keeps_the_axes_of_the_space_before(task):
    """Signs of axes are arbitrary: without the space before, they may come out otherwise on another machine."""
    before = -task.seen
    example = replace(task.example, known=before)
    again = SeenSpaceTask(task.photos, task.val, example, SPACE)
    assert F.cosine_similarity(again.seen, before, dim=1).min() > 0.99


def test_a_tower_that_looks_larger_is_kept_so(tmp_path):
    """What looks at 32 pixels of pictures of 16 sees what one of 32 sees of the enlarged; its folder says so."""
    teacher = small_teacher()
    teacher.net = build_space(replace(SPACE, sees=32), len(teacher.reader)).eval()
    teacher.net.load_state_dict(small_teacher().net.state_dict())
    plain = build_space(replace(SPACE, image_size=32), len(teacher.reader)).eval()
    plain.load_state_dict(teacher.net.state_dict())
    pixels = to_pixels(coloured_photos(4).pixels)
    large = F.interpolate(pixels, size=(32, 32), mode="bilinear")
    with torch.no_grad():
        own, wanted = teacher.net.image_parts(pixels), plain.image_parts(large)
    torch.testing.assert_close(own[0], wanted[0])
    assert not torch.equal(own[0], small_teacher().net.image_parts(pixels)[0])
    teacher.save(tmp_path, torch.float32)
    again = Teacher.load(tmp_path)
    assert again.net.sees == 32 and again.image_size == SIZE
    pictures = to_images(pixels)
    torch.testing.assert_close(
        again.embed(pictures)[:, :SEMANTIC], teacher.net.encode_image(pixels)[:, :SEMANTIC].detach()
    )
    patches = TeacherEncoder(again, "small", "0").look(pictures)
    assert patches.shape[1] == (32 // 8) ** 2
