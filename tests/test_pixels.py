"""Pixels with gradients: what a space gives for them is what it gives for pictures, and every pixel is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.errors import ModelError
from mmx.spaces.base import Space
from mmx.spaces.load import load_space
from tests import tiny_spaces
from tests.small_space import small_space


@pytest.fixture(scope="module", params=["gan_decoder", "clip", "siglip"])
def space(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Space:
    folder: Path = getattr(tiny_spaces, request.param)(tmp_path_factory.mktemp(request.param))
    return load_space(str(folder), device="cpu")


def blobs(width: int, height: int) -> Image.Image:
    """A picture without edges, in which resampling filters differ little."""
    x, y = np.meshgrid(np.linspace(0, 3, width), np.linspace(0, 2, height))
    waves = np.stack([np.sin(2 * x + y), np.cos(x - 2 * y), np.sin(x * y)], -1)
    return Image.fromarray((127.5 + 120 * waves).astype(np.uint8))


def tensor(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture) / 255).permute(2, 0, 1).float()[None]


@pytest.mark.parametrize("size", [(64, 64), (90, 60)])
def test_pixels_are_seen_as_pictures_are(space: Space, size: tuple[int, int]) -> None:
    picture = blobs(*size)
    seen = space.see(tensor(picture))
    assert torch.allclose(seen, space.encode([picture], "image"), atol=0.02)
    assert not torch.allclose(seen, space.see(1 - tensor(picture)), atol=0.02)


def test_a_gradient_is_the_slope(space: Space) -> None:
    """Against the difference along one direction, in steps that a float32 network still tells apart."""
    pixels = tensor(blobs(64, 64)).requires_grad_()
    aim, way = torch.randn(space.dim), torch.randn(pixels.shape).sign() * torch.linspace(0, 1, 64)
    (slope,) = torch.autograd.grad((space.see(pixels) @ aim).sum(), pixels)
    with torch.no_grad():
        step = 1e-3
        there, back = (float((space.see(pixels + by * way) @ aim).sum()) for by in (step, -step))
    assert float((slope * way).sum()) == pytest.approx((there - back) / 2 / step, rel=0.1, abs=1e-3)
    assert slope.abs().sum() > 0 and all(w.grad is None for net in space.models for w in net.parameters())


def test_a_space_without_gradients_says_so() -> None:
    with pytest.raises(ModelError, match="the space small gives no gradients"):
        replace(small_space(), pixels=None).see(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ModelError, match="no images"):
        small_space(without="image").see(torch.zeros(1, 3, 8, 8))
