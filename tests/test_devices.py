"""Every command with its decoder on another device than its inputs: what is on the CPU must be moved, and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

SOUND2IMG = {
    "several": ("-n", 3),
    "sheet": ("-n", 2, "--grid"),
    "image": ("--image", "PHOTO:0.5"),
    "mix": ("--mix", "SEA:0.3"),
    "interpolate": ("--interpolate", "SEA", "--frames", 3),
}


def test_the_stand_in_is_a_device(second_device: str) -> None:
    """It holds values, refuses what is elsewhere, and trains to the weights that the CPU trains to."""

    def trained(device: str) -> torch.Tensor:
        torch.manual_seed(0)
        net, x = torch.nn.Linear(4, 2), torch.randn(8, 4)
        net.to(device)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
        for _ in range(3):
            net(x.to(device)).square().mean().backward()
            optimizer.step()
        return net.weight.detach().cpu()

    assert torch.equal(trained("cpu"), trained(second_device))
    x = torch.arange(4.0)
    there = x.to(second_device)
    assert str(there.device) == f"{second_device}:0" and torch.equal((there + there).cpu(), x + x)
    for meet in (lambda: there + x, lambda: torch.stack([there, x]), there.numpy, lambda: x[there.long()]):
        with pytest.raises(RuntimeError):
            meet()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(tmp_path / "p.png")
    return tmp_path / "p.png"


@pytest.fixture
def carried_out(mmx_in_process, second_device: str, tmp_path: Path):
    """A command on the second device that must succeed: (its stdout, the path it was told to write)."""

    def run(*arguments: object, suffix: str = ".png") -> Path:
        out = tmp_path / f"out{suffix}"
        code, _, err = mmx_in_process(*arguments, "-o", out, "--device", second_device, "--dtype", "fp32")
        assert code == 0, err.decode()
        return out

    return run


@pytest.mark.parametrize("kind", SOUND2IMG)
def test_sound2img(carried_out, mmx_in_process, debug_options, bark: Path, sea: Path, photo: Path, kind: str) -> None:
    """The same pictures as on the CPU, but for rounding."""
    names = {"PHOTO:0.5": f"{photo}:0.5", "SEA:0.3": f"{sea}:0.3", "SEA": sea}
    options = [names.get(option, option) for option in SOUND2IMG[kind]]
    out = carried_out("sound2img", bark, *options, *debug_options)
    found = sorted(out.parent.glob("out*.png"))
    there = [np.asarray(Image.open(path)).astype(int) for path in found]
    code, _, _ = mmx_in_process(
        "sound2img", bark, *options, *debug_options, "-o", out, "--device", "cpu", "--overwrite"
    )
    here = [np.asarray(Image.open(path)).astype(int) for path in found]
    assert code == 0 and all(np.abs(a - b).max() <= 2 for a, b in zip(there, here, strict=True))


@pytest.mark.parametrize("rest", [(), ("--average",), ("-n", 2, "--grid")])
def test_voice2face(carried_out, face_options, low: Path, high: Path, rest: tuple) -> None:
    carried_out("voice2face", low, *([high] if rest else []), *rest, *face_options)


def test_text2img(carried_out, debug_options) -> None:
    carried_out("text2img", "a dog", *debug_options)


@pytest.mark.parametrize("rest", [(), ("--beam", 2), ("-n", 2)])
def test_img2speech(carried_out, speech_options, photo: Path, rest: tuple) -> None:
    carried_out("img2speech", photo, *rest, *speech_options, suffix=".wav")


def test_bfloat16_only_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CPUs without instructions for it, mixed precision is many times slower than float32, so it is left out."""
    from mmx import device

    for pays, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda pays=pays: pays)
        with device.autocast("cpu"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
        with device.autocast("cpu", False):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    assert device.bf16_pays("cuda:1")
