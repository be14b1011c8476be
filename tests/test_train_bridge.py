"""The one trainer of bridges: what each task supplies to it, on the CPU and on another device."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmx.bridges.sound import SoundBridge
from mmx.decoders.base import fingerprint
from mmx.errors import ModelError
from mmx.nets.sound import SoundCNN
from tests import tiny
from tests.conftest import training
from tests.small_data import pair_folder, png, wav

pytestmark = pytest.mark.usefixtures("small_bridges")
# task, its decoder's fixture, the encoder, further options
CASES: dict[str, tuple[str, str, Callable[[Path], Path] | None, tuple]] = {
    "sound": ("sound2img", "debug_models", None, ("--architecture", "transformer")),
    "two sources": ("sound2img", "debug_models", None, ("--source", "sound+image", "--architecture", "transformer")),
    "by the prior": ("sound2img", "debug_models", None, ("--loss", "prior", "--architecture", "transformer")),
    "frozen encoder": ("sound2img", "debug_models", tiny.clap, ("--loss", "mse", "--normalize-targets")),
    "adapted encoder": ("sound2img", "debug_models", tiny.clap, ("--lora", 2)),
    "voice": ("voice2face", "face_models", None, ("--architecture", "transformer")),
    "image": ("img2speech", "speech_models", None, ()),
}


def manifest(folder: Path, task: str, low: Path, high: Path) -> Path:
    """Ten pairs of a task, two of them for val, with a picture beside each."""
    folder.mkdir(exist_ok=True)
    rows = []
    for k in range(10):
        (folder / f"{k}.png").write_bytes(png(20 * k))
        shutil.copy((low, high)[k % 2], folder / f"{k}.wav") if task == "voice2face" else (
            folder / f"{k}.wav"
        ).write_bytes(wav(200 + 60 * k))
        names = (f"{folder.name}/{k}.wav", f"{folder.name}/{k}.png")
        source, target = names[::-1] if task == "img2speech" else names
        row = {"source": source, "target": target, "split": "val" if k > 7 else "train"}
        rows.append(json.dumps(row | {"source2": f"{folder.name}/{9 - k}.png"}))
    path = folder.parent / f"{task}.jsonl"
    path.write_text("\n".join(rows))
    return path


@pytest.mark.parametrize("case", CASES)
def test_every_task_trains_on_another_device(
    mmx_in_process, request, second_device: str, case: str, tmp_path: Path, low: Path, high: Path
) -> None:
    """The decoder, an encoder and all stages are there, and what comes out is what the CPU gives, but for rounding."""
    task, models, make, options = CASES[case]
    decoder = request.getfixturevalue(models)[1]
    encoder = make(tmp_path / "encoder") if make else request.getfixturevalue("debug_models")[1]
    data, before = manifest(tmp_path / "data", task, low, high), fingerprint(decoder, (".",))
    if make or task == "img2speech":
        options = (*options, "--encoder", encoder)
    for device in (second_device, "cpu"):
        command = training(task, data, tmp_path / device, decoder, "--mixed-precision", "no", *options)
        code, _, err = mmx_in_process(*command, "--device", device)
        assert code == 0, err.decode()
        preview = "preview.wav" if task == "img2speech" else "preview.png"
        assert (tmp_path / device / "bridge" / preview).exists()
    assert fingerprint(decoder, (".",)) == before
    there, here = (load_file(tmp_path / device / "model.safetensors") for device in (second_device, "cpu"))
    assert there.keys() == here.keys()
    for name, value in here.items():
        assert torch.allclose(value.float(), there[name].float(), atol=0.02), name
    prior = json.loads((tmp_path / "cpu" / "config.json").read_text())["prior"]
    assert (prior is None) == (task == "img2speech") and any(n.startswith("prior.") for n in here) == bool(prior)


def test_a_bridge_goes_on_from_finished_weights(mmx_in_process, debug_models, tmp_path: Path, low, high) -> None:
    """At a rate of zero the encoder stays what it was given; the prior is one step away from what it was given."""
    decoder, data = debug_models[1], manifest(tmp_path / "data", "sound2img", low, high)
    prior = ("--prior-steps", 1, "--device", "cpu", "--mixed-precision", "no")

    def trained(run: str, *options: object) -> dict[str, torch.Tensor]:
        command = training("sound2img", data, tmp_path / run, decoder, *prior, *options)
        code, _, err = mmx_in_process(*command)
        assert code == 0, err.decode()
        return load_file(tmp_path / run / "model.safetensors")

    def away(first: dict, second: dict, part: str) -> float:
        names = [name for name in first if name.startswith(part) and first[name].ndim > 1]
        return max((first[name].float() - second[name].float()).abs().max().item() for name in names)

    first = trained("first")
    fresh, begun = trained("fresh", "--seed", 5), trained("begun", "--seed", 5, "--lr", 0, "--init", tmp_path / "first")
    assert away(first, begun, "encoder.") == 0 < 0.05 < away(first, fresh, "encoder.")
    assert away(first, begun, "prior.") < 0.03 < away(first, fresh, "prior.")  # float8, and a step of 0.001
    command = training("sound2img", data, tmp_path / "begun", decoder, *prior, "--seed", 5, "--lr", 0)
    code, _, err = mmx_in_process(*command)
    assert code == 2 and b"--init" in err
    # what does not fit the weights it was given begins anew, and that is said; where all fits, nothing is
    for norm, said in (("group", False), ("batch", True)):
        options = (*prior, "--norm", norm, "--init", tmp_path / "first")
        loud = (word for word in training("sound2img", data, tmp_path / norm, decoder, *options) if word != "--quiet")
        code, _, err = mmx_in_process(*loud)
        assert code == 0 and (b"tensors begin anew" in err) == said, err.decode()
    code, _, err = mmx_in_process(*command[:5], tmp_path / "other", *command[6:], "--init", tmp_path / "nowhere")
    assert code == 2 and b"no such folder" in err
    # one that was changed is said before any data is read
    (tmp_path / "first" / "config.json").write_text("{}")
    changed = ("--cache", tmp_path / "unread", "--init", tmp_path / "first")
    code, _, err = mmx_in_process(*command[:5], tmp_path / "other", *command[6:], *changed)
    assert code == 4 and b"sha256 differs" in err and not (tmp_path / "unread").exists()


def test_new_bridges_normalise_by_group_and_old_ones_by_batch(mmx_in_process, debug_models, tmp_path: Path) -> None:
    """A folder of the version before, whose config names no normalisation, is read as it was written."""
    old = shutil.copytree(debug_models[0], tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    assert config.pop("norm") == "batch"
    (old / "config.json").write_text(json.dumps(config))
    features = torch.randn(2, 3, 64, 300, generator=torch.Generator().manual_seed(0))
    read, written = SoundBridge.load(old), SoundBridge.load(debug_models[0])
    assert torch.equal(read(features), written(features)) and has_norm(read, nn.BatchNorm2d)
    (old / "config.json").write_text(json.dumps(config | {"norm": "none"}))
    with pytest.raises(ModelError, match="can't be read"):
        SoundBridge.load(old)
    data = pair_folder(tmp_path / "pairs", 12)
    for norm, options in (("group", ()), ("batch", ("--norm", "batch"))):
        command = training("sound2img", data, tmp_path / norm, debug_models[1], "--prior-steps", 0, *options)
        code, _, err = mmx_in_process(*command)
        assert code == 0, err.decode()
        assert json.loads((tmp_path / norm / "config.json").read_text())["norm"] == norm
    assert not has_norm(SoundBridge.load(tmp_path / "group"), nn.BatchNorm2d)
    assert mmx_in_process(*command, "--norm", "layer")[0] == 2


def has_norm(bridge: SoundBridge, kind: type[nn.Module]) -> bool:
    return any(isinstance(module, kind) for module in bridge.encoder.modules())


def test_group_normalisation_sees_one_item_at_a_time() -> None:
    """While it trains, what an item becomes depends on no other; against a naive twin of the first layer."""
    torch.manual_seed(0)
    net = SoundCNN(6, channels=(16, 12), dropout=0.0, norm="group").train()
    features = torch.randn(3, 64, 300)
    assert torch.allclose(net(features)[1:2], net(features[1:2]), atol=1e-5)
    convolved = net.blocks[0][0](features[:1, None])
    groups = convolved.reshape(8, -1)  # two channels each
    naive = (groups - groups.mean(1, keepdim=True)) / (groups.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
    assert torch.allclose(net.blocks[0][1](convolved), naive.view_as(convolved), atol=1e-5)
    assert net.blocks[1][1].num_groups == 4  # twelve channels are not divided by eight


def test_a_decoder_that_was_trained_along_is_found_out(
    mmx_in_process, monkeypatch: pytest.MonkeyPatch, debug_models, tmp_path: Path
) -> None:
    """By its weights in memory: on the disk nothing changes."""
    from mmx.training.bridges import train

    loaded, fit = [], train.Run.fit
    load = train.load_decoder
    monkeypatch.setattr(train, "load_decoder", lambda *a, **k: loaded.append(load(*a, **k)) or loaded[-1])

    def fit_and_touch(run, **options):
        with torch.no_grad():
            next(loaded[-1].networks()[-1].parameters()).add_(1e-3)
        return fit(run, **options)

    data = pair_folder(tmp_path / "pairs", 12)
    assert mmx_in_process(*training("sound2img", data, tmp_path / "good", debug_models[1], "--prior-steps", 0))[0] == 0
    monkeypatch.setattr(train.Run, "fit", fit_and_touch)
    code, _, err = mmx_in_process(*training("sound2img", data, tmp_path / "run", debug_models[1], "--prior-steps", 0))
    assert code == 1 and b"frozen decoder" in err
    assert not (tmp_path / "run" / "model.safetensors").exists()
