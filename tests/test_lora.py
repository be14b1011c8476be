"""Adapters on a frozen encoder: what they compute, that they alone are trained and saved, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmx.decoders.base import fingerprint
from mmx.nets.lora import Adapters, adaptable
from tests import tiny
from tests.conftest import training
from tests.small_data import pair_folder


def test_an_adapted_layer_is_the_layer_with_another_weight() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"attention": nn.ModuleDict({"q_proj": nn.Linear(6, 4), "out": nn.Linear(6, 4)})})
    layers = adaptable(network)
    assert layers == {"attention.q_proj": [6, 4]}
    adapters, x = Adapters(2, layers, alpha=6.0), torch.randn(3, 6)
    own, before = network["attention"]["q_proj"].weight.clone(), network["attention"]["q_proj"](x)
    adapters.attach(network)
    assert torch.equal(network["attention"]["q_proj"](x), before)  # at first they change nothing
    for value in adapters.up.values():
        nn.init.normal_(value)
    (down,), (up,) = adapters.down.values(), adapters.up.values()
    weight = own + 3.0 * up @ down  # alpha / rank
    naive = x @ weight.T + network["attention"]["q_proj"].bias
    assert torch.allclose(network["attention"]["q_proj"](x), naive, atol=1e-5)


@pytest.mark.parametrize("make", [tiny.wavlm, tiny.clap, tiny.pe_audio])
def test_adapters_are_trained_saved_and_used(mmx_in_process, make, debug_models, tmp_path: Path, bark: Path) -> None:
    encoder, data, run = make(tmp_path / "encoder"), pair_folder(tmp_path / "pairs", 24), tmp_path / "run"
    before = fingerprint(encoder, (".",))
    command = training("sound2img", data, run, debug_models[1], "--encoder", encoder, steps=4)
    code, _, err = mmx_in_process(*command, "--lora", 4)
    assert code == 0, err.decode()
    config, tensors = json.loads((run / "config.json").read_text()), load_file(run / "model.safetensors")
    assert config["architecture"] == "lora" and config["sizes"]["rank"] == 4
    ups = [value for name, value in tensors.items() if ".up." in name]
    assert ups and all(value.abs().sum() > 0 for value in ups)  # they start at zero: these were trained
    assert not any("listener" in name or "model" in name for name in tensors)  # of the encoder nothing is kept
    assert fingerprint(encoder, (".",)) == before
    options = ("--bridge", run, "--decoder", debug_models[1], "--steps", 2)
    code, _, err = mmx_in_process("sound2img", bark, "-o", tmp_path / "a.png", *options, "--encoder", encoder)
    assert code == 0, err.decode()
    assert mmx_in_process("reproduce", tmp_path / "a.png", bark, *options[:4], "--encoder", encoder)[0] == 0
    code, _, err = mmx_in_process(*command[:-2], "--lora", 4)
    assert code == 2 and b"--encoder wavlm --lora 8" in err
