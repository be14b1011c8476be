"""How many threads compute: one for small work, whatever the machine has, and one in a forked child."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import mmx
from mmx.device import SMALL, threads_for
from mmx.translate.load import load
from tests.conftest import ROOT

PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


@pytest.fixture
def two() -> Iterator[None]:
    """The process has two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class Counted:
    """Networks by name, and the numbers of threads that they were called with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **networks: nn.Module) -> None:
        self.seen: dict[str, set[int]] = {name: set() for name in networks}
        for name, network in networks.items():
            forward = network.forward

            def counted(*args, _name: str = name, _forward=forward, **options):
                self.seen[_name].add(torch.get_num_threads())
                return _forward(*args, **options)

            monkeypatch.setattr(network, "forward", counted)


def test_threads_wait_without_spinning_unless_the_user_wants_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PASSIVE:
        monkeypatch.delenv(name, raising=False)
    importlib.reload(mmx)
    assert {name: os.environ[name] for name in PASSIVE} == PASSIVE
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    importlib.reload(mmx)
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize("entry", ["import mmx", "import mmx.cli.app", "import mmx.media.files"])
def test_that_is_set_before_torch_can_be_there(entry: str) -> None:
    script = f"import os, sys\n{entry}\nprint('torch' in sys.modules, *map(os.environ.get, {tuple(PASSIVE)}))"
    clean = {name: value for name, value in os.environ.items() if name not in PASSIVE}
    done = subprocess.run([sys.executable, "-c", script], env=clean, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout.split() == [b"False", b"PASSIVE", b"0"]


def test_one_thread_for_little_work_and_all_for_much(two: None) -> None:
    small, large = nn.Linear(8, 8), nn.Linear(SMALL // 1000, 1000)
    away = nn.Linear(8, 8, device="meta")  # what computes elsewhere
    for networks, items, threads in (
        ((), 1, 1),
        ((small,), 1, 1),
        ((small,), SMALL, 2),
        ((small, large), 1, 2),
        ((away,), 1, 2),
    ):
        with threads_for(*networks, items=items):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    with pytest.raises(ValueError), threads_for(small):
        raise ValueError
    assert torch.get_num_threads() == 2


def test_a_bridge_and_its_prior_take_one_thread_and_a_diffusion_model_all(
    debug_models: tuple[Path, Path], two: None, monkeypatch: pytest.MonkeyPatch, bark: Path
) -> None:
    bridge, decoder = map(str, debug_models)
    translator = load("sound2img", bridge=bridge, decoder=decoder)
    teacher = translator.decoder.teacher.net
    parts = {"encoder": translator.bridge.encoder, "prior": translator.bridge.prior.inputs, "sight": teacher.semantic}
    counted = Counted(
        monkeypatch, unet=translator.decoder.pipeline.unet, reads=teacher.text_encoder.text_projection, **parts
    )
    translator(bark, image=(translator(bark)[0], 0.5))
    translator.decoder.teacher.embed_texts(["a photo of a dog"])
    assert counted.seen == {"unet": {2}, "reads": {1}, "encoder": {1}, "prior": {1}, "sight": {1}}
    assert torch.get_num_threads() == 2


def test_what_writes_and_speaks_takes_one_thread(
    speech_models: tuple[Path, Path, Path], two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge, decoder, encoder = map(str, speech_models)
    translator = load("img2speech", bridge=bridge, decoder=decoder, encoder=encoder)
    looking = translator.bridge.frontend.encoder.teacher.net.image_encoder
    counted = Counted(
        monkeypatch, writes=translator.bridge.encoder.lasting, speaks=translator.decoder.vocoder, looks=looking
    )
    translator(Image.radial_gradient("L").convert("RGB"))
    assert counted.seen == {"writes": {1}, "speaks": {1}, "looks": {1}}


def test_one_step_takes_one_thread(two: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from mmx.decoders.gan import GanDecoder, save_gan_decoder
    from mmx.nets.generator import Generator
    from tests.small_gan import CONFIG, small_teacher

    save_gan_decoder(tmp_path, Generator(**vars(CONFIG.generator)), small_teacher(), name="small")
    decoder = GanDecoder.load(tmp_path)
    counted = Counted(monkeypatch, draws=decoder.net)
    decoder.decode(torch.zeros(2, *decoder.spec.shape), generators=[torch.Generator(), torch.Generator()])
    assert counted.seen == {"draws": {1}}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_computes_with_one_thread_and_does_not_hang(two: None) -> None:
    square = torch.ones(512, 512)
    square @ square  # the parent's threads are there, and the child would wait for them for ever
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # ends a child that hangs
        right = torch.get_num_threads() == 1 and bool((square @ square == 512).all())
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert torch.get_num_threads() == 2
