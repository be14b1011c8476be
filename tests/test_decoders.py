"""What every decoder keeps to, on whatever device: what it takes and gives, how much at once, and where its
parts are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmx.decoders.base import Decoder
from mmx.decoders.frozen import in_batches
from mmx.decoders.load import load_decoder
from mmx.device import Placed, out_of_memory
from mmx.errors import ModelError
from mmx.media.audio import Waveform, resample
from mmx.models.store import locate
from tests import tiny, tiny_speech
from tests.conftest import tone
from tests.debug import make_decoder, make_face_decoder, make_speech_decoder

MAKE: dict[str, tuple[str, Callable[[Path], object]]] = {
    "image": ("image", lambda folder: make_decoder(folder / "d")),
    "face": ("image", lambda folder: make_face_decoder(folder / "d")),
    "kandinsky": ("image", tiny.kandinsky),
    "unclip": ("image", tiny.unclip),
    "ip-adapter": ("image", tiny.sd),
    "arc2face": ("image", tiny.arc2face),
    "speech": ("sound", lambda folder: make_speech_decoder(folder / "d")),
    "seamless": ("sound", lambda folder: (tiny_speech.seamless(folder / "s"), tiny_speech.hubert(folder / "h"))),
    "hifigan": ("sound", lambda folder: (tiny_speech.unit_hifigan(folder / "u"), tiny_speech.hubert(folder / "h"))),
}
PICTURES = [name for name, (modality, _) in MAKE.items() if modality == "image"]
SPEECH = [name for name in MAKE if name not in PICTURES]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Decoder]:
    """A family's name → its decoder, read anew from a tiny folder."""
    made: dict[str, str] = {}

    def read(family: str) -> Decoder:
        modality, make = MAKE[family]
        if family not in made:
            found = make(tmp_path_factory.mktemp(family))
            made[family] = "+".join(map(str, found if isinstance(found, tuple) else (found,)))
        return load_decoder(locate(made[family], "sound2img", "decoder"), modality)

    return read


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8))


def drawn(decoder: Decoder, family: str, count: int = 3) -> list[np.ndarray]:
    """`count` small results, each from a generator of its own."""
    if MAKE[family][0] == "sound":
        return [wave.samples for wave in decoder.decode([torch.arange(5) + k for k in range(count)])]
    points = torch.randn(count, *decoder.spec.shape, generator=torch.Generator().manual_seed(0))
    generators = [torch.Generator().manual_seed(k) for k in range(count)]
    size = decoder.defaults["size"] if family in ("image", "face") else 16
    return [np.asarray(p).astype(float) for p in decoder.decode(points, generators=generators, steps=1, size=size)]


@pytest.mark.parametrize("family", MAKE)
def test_it_takes_and_gives_what_is_on_the_cpu(models, second_device: str, family: str) -> None:
    """On another device it draws what it draws on the CPU, but for rounding."""
    decoder = models(family)
    here = drawn(decoder, family)
    target = photo() if family in PICTURES else Waveform(tone(1.0, 300.0), 16_000)
    before = decoder.targets([target])[0]
    decoder.place(Placed(second_device))
    assert decoder.device.type == second_device and (decoder.max_batch == 1) == (family in SPEECH)
    there, scale = drawn(decoder, family), max(np.abs(a).max() for a in here)
    assert all(np.abs(a - b).max() <= 0.02 * scale for a, b in zip(here, there, strict=True))
    after = decoder.targets([target])[0]
    assert str(after.device) == "cpu" and torch.allclose(before.float(), after.float(), atol=1e-4)


@pytest.mark.parametrize("family", MAKE)
def test_to_spare_memory_nothing_stays_on_the_device(models, second_device: str, family: str, monkeypatch) -> None:
    """A pipeline is asked to bring its parts one by one; a vocoder comes, speaks and goes."""
    asked = []
    monkeypatch.setattr(
        "diffusers.DiffusionPipeline.enable_sequential_cpu_offload", lambda self, device: asked.append((self, device))
    )
    decoder = models(family)
    here = [] if family in PICTURES else drawn(decoder, family)
    decoder.place(Placed(second_device), low_memory=True)
    assert decoder.device.type == second_device and decoder.max_batch == 1
    if family in PICTURES:
        assert asked == [(decoder.pipeline, second_device)]
        return
    assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(here, drawn(decoder, family), strict=True))
    assert next(decoder.vocoder.parameters()).device.type == "cpu"


@pytest.mark.parametrize("family", MAKE)
def test_compiling_compiles_what_draws(models, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: asked.append(self))
    decoder = models(family).place(Placed("cpu"), compile=True)
    assert asked == [decoder.pipeline.unet if family in PICTURES else decoder.vocoder]


@pytest.mark.parametrize("family", PICTURES)
def test_where_memory_runs_out_half_as_many_are_drawn(
    models, second_device: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each item once and in order, from the same noise as if all had fitted; the next call knows what fits."""
    decoder = models(family).to(second_device)
    whole = drawn(decoder, family, 7)
    decoder.max_batch, sizes = 7, []
    pipeline = type(decoder.pipeline)
    call = pipeline.__call__

    def small(self, *arguments, generator, **options):
        sizes.append(len(generator))
        output = call(self, *arguments, generator=generator, **options)  # the noise is drawn before memory runs out
        if len(generator) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return output

    monkeypatch.setattr(pipeline, "__call__", small)
    parts = drawn(decoder, family, 7)
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1] and decoder.max_batch == 1
    assert all(np.abs(a - b).max() <= 3 for a, b in zip(whole, parts, strict=True))


def test_batches_are_halved_until_they_fit() -> None:
    sizes = []

    def work(part: slice) -> list[int]:
        sizes.append(part.stop - part.start)
        if sizes[-1] > 3:
            raise RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)")
        return list(range(part.start, part.stop))

    assert in_batches(work, 9, 8) == (list(range(9)), 2)
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    with pytest.raises(RuntimeError, match="out of memory"):
        in_batches(lambda part: (_ for _ in ()).throw(RuntimeError("out of memory")), 3, 2)
    with pytest.raises(RuntimeError, match="no such"):
        in_batches(lambda part: (_ for _ in ()).throw(RuntimeError("no such thing")), 3, 2)
    assert out_of_memory(torch.OutOfMemoryError("x")) and not out_of_memory(ValueError("x"))


def test_hundreds_of_pictures_are_embedded_in_parts(models) -> None:
    teacher, most = models("image").teacher, []
    own = teacher._embed
    teacher._embed = lambda images: (most.append(len(images)), own(images))[1]
    pictures = [Image.new("RGB", (8, 8), (k % 256, 0, 0)) for k in range(300)]
    assert teacher.embed(pictures).shape == (300, 32) and most == [256, 44]


@pytest.mark.parametrize("family", SPEECH)
@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_speech_of_any_rate_has_the_units_of_its_sound(models, family: str, rate: int) -> None:
    """What is resampled by hand and what is given as it is, has the same units, and as many as it lasts."""
    decoder = models(family)
    wave = tone(1.0, 300.0, rate) + 0.1 * tone(1.0, 1700.0, rate)
    given = decoder.targets([Waveform(wave, rate)])[0]
    by_hand = decoder.targets([Waveform(resample(wave, rate, 16_000), 16_000)])[0]
    assert torch.equal(given, by_hand) and len(given) == pytest.approx(31 if family == "speech" else 50, abs=2)


def test_what_a_teacher_cannot_do_it_refuses(models) -> None:
    faces, pictures, recogniser = (models(name).teacher for name in ("face", "image", "arc2face"))
    assert faces.names_faces and not faces.has_texts and pictures.has_texts and not pictures.names_faces
    assert pictures.suggest(torch.zeros(32)) == [] and len(faces.suggest(torch.ones(32))) == 2
    for refused in (lambda: faces.embed_texts(["a"]), lambda: recogniser.gender_shares(torch.zeros(1, 12))):
        with pytest.raises(ModelError):
            refused()
