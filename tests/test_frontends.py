"""How sources are heard and seen: at work, out of the cache, and while a bridge trains, the same thing."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.frontends import Frontend, FrozenVector, Image, LogMel, Wave, sound_of
from mmx.bridges.image_encoders import open_image_encoder
from mmx.data.fill import Space
from mmx.data.pairs import Rows
from mmx.media.audio import Waveform, wav_bytes
from mmx.models.store import Located
from mmx.nets.sound import audible, log_mel, standardise
from mmx.training.bridges.augment import MEL_CENTRES, mixed, narrow_line
from tests import tiny
from tests.conftest import RATE, tone

KINDS = ("log-mel", "log-mel of a voice", "vector", "wave", "image")


def clip(seconds: float = 4.0) -> Waveform:
    """Two tones, one after the other: no two parts are alike."""
    return Waveform(np.concatenate((tone(seconds / 2, 300.0), 0.3 * tone(seconds / 2, 2500.0))), RATE)


@pytest.fixture(scope="module")
def frontends(tmp_path_factory: pytest.TempPathFactory, debug_models) -> dict[str, Frontend]:
    encoder = Listener.load(Located("clap", tiny.clap(tmp_path_factory.mktemp("clap"))))
    looking = open_image_encoder(Located("image", debug_models[1]))
    made = (LogMel(), LogMel(voice=True), FrozenVector(encoder), Wave(encoder), Image(looking))
    return dict(zip(KINDS, made, strict=True))


def media_of(kind: str, low: Path) -> tuple[object, bytes]:
    """A medium as a translator reads it, and the bytes of its file."""
    if kind == "image":
        pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
        buffer = io.BytesIO()
        Picture.fromarray(pixels).save(buffer, "PNG")
        return Picture.fromarray(pixels), buffer.getvalue()
    if kind == "log-mel of a voice":
        return sound_of(low.read_bytes(), "low", voice=True), low.read_bytes()
    data = wav_bytes(clip())
    return sound_of(data, "clip"), data


def cached(folder: Path, frontend: Frontend, rows: list[torch.Tensor]) -> Rows:
    """Rows as a training reads them."""
    cache = Space.of(folder, frontend).cache
    cache.add(range(1, len(rows) + 1), rows)
    cache.refresh()
    numbers = torch.from_numpy(cache.find(np.arange(1, len(rows) + 1, dtype=np.uint64)))
    return Rows(cache, numbers, torch.zeros(len(rows), dtype=torch.long))


@pytest.mark.parametrize("kind", KINDS)
def test_the_cache_gives_what_the_medium_itself_gives(frontends, kind: str, low: Path, tmp_path: Path) -> None:
    frontend, (medium, data) = frontends[kind], media_of(kind, low)
    (row, nothing) = frontend.encode([data, b"neither a sound nor a picture"], ["a", "b"])
    assert nothing is None and row.dtype == frontend.empty.dtype and row.shape[1:] == frontend.empty.shape[1:]
    at_work, stored = frontend.prepare(medium), cached(tmp_path, frontend, [row])
    out_of_cache = frontend.windows(stored.get(0))
    assert at_work.shape == out_of_cache.shape and len(at_work) == frontend.count
    assert at_work.dtype == out_of_cache.dtype == torch.float32 and at_work.device.type == "cpu"
    scale = at_work.abs().mean()  # rows are rounded to 16 bits, those of pictures computed in bfloat16
    assert (at_work - out_of_cache).abs().mean() < 0.02 * scale
    crops = torch.stack([frontend.crop(stored, 0, place) for place in (0.0, 0.999)]).float()
    assert frontend.finish(crops).shape[1:] == at_work.shape[1:]
    first, last = at_work[0], at_work[-1]  # the first window and the last, the picture and its mirror image
    for own, wanted in zip(frontend.finish(crops), (first, last), strict=True):
        assert (own - wanted).abs().mean() < 0.02 * scale
    if frontend.count > 1:
        assert (first - last).abs().mean() > 0.1 * scale


def test_windows_are_spread_evenly_over_a_log_mel(frontends) -> None:
    """Against a naive twin."""
    mel = torch.randn(64, 460)
    heard = frontends["log-mel of a voice"].windows(mel.T)
    naive = torch.stack([standardise(mel[:, start : start + 300]) for start in (0, 53, 107, 160)])
    assert torch.equal(heard, naive)


def test_what_can_be_mixed_adds_up(frontends) -> None:
    """The mix of two log-mels is that of both sounds at once; other features are not mixed."""
    assert [kind for kind in KINDS if frontends[kind].can_mix] == ["log-mel", "log-mel of a voice"]
    rng = np.random.default_rng(0)
    one, other = (torch.from_numpy(rng.standard_normal(3 * RATE).astype(np.float32)) for _ in range(2))
    both = log_mel((one / one.std() + other / other.std()) / 2**0.5)
    together = mixed(log_mel(one)[None], log_mel(other)[None], torch.tensor([0.5]))[0]
    assert torch.allclose(both.exp().mean(1), together.exp().mean(1), rtol=0.15)  # power, over time


def test_spaces_keep_their_names(frontends, tmp_path: Path) -> None:
    """Whoever has a cache of the version before need not compute it anew."""
    clap, image = frontends["vector"].encoder.fingerprint[:16], frontends["image"].encoder.fingerprint[:16]
    assert [Space.of(tmp_path, frontends[kind]).cache.folder.name for kind in KINDS] == [
        "sound-logmel64-v2-5f2e6527",
        "voice-logmel64-v2-5f2e6527",
        f"sound-{clap}-f0839192",
        "sound-pcm16-16000-v1-5030df42",
        f"patches-{image}-a9a78cca",
    ]


@pytest.mark.parametrize("hertz", [0, 3, 8, 15])
def test_what_lies_below_hearing_is_not_in_a_log_mel(hertz: int) -> None:
    """An offset, wind or traffic ten times as strong as the sound changes nothing."""
    rng, time = np.random.default_rng(0), np.arange(4 * RATE) / RATE
    sound = rng.standard_normal(len(time)).astype(np.float32) * 0.02
    rumble = (0.3 * np.cos(2 * np.pi * hertz * time)).astype(np.float32)
    plain, with_rumble = (log_mel(torch.from_numpy(x)) for x in (sound, sound + rumble))
    inside = slice(30, -30)  # at the very ends the rumble begins and stops, and that is heard
    assert (standardise(plain[:, inside]) - standardise(with_rumble[:, inside])).abs().max() < 0.2


def test_what_is_audible_is_left_as_it_was() -> None:
    time = np.arange(2 * RATE) / RATE
    tones = torch.from_numpy(sum(np.sin(2 * np.pi * f * time) for f in (50, 440, 5000)).astype(np.float32))
    inside = slice(RATE // 4, -RATE // 4)
    torch.testing.assert_close(audible(tones)[inside], tones[inside], atol=2e-3, rtol=0)


@pytest.mark.parametrize("limit", [1700, 4000, 5512])
def test_a_narrow_line_in_training_is_what_one_sounds_like(limit: int) -> None:
    """Against the log-mel of a sound that really was sampled so."""
    rng = np.random.default_rng(0)
    wide = (rng.standard_normal(3 * RATE) * np.linspace(0.1, 1, 3 * RATE)).astype(np.float32)
    spectrum = np.fft.rfft(wide)
    spectrum[np.fft.rfftfreq(len(wide), 1 / RATE) > limit] = 0
    narrow = log_mel(torch.from_numpy(np.fft.irfft(spectrum, len(wide)).astype(np.float32)))
    trained = narrow_line(log_mel(torch.from_numpy(wide))[None], torch.tensor([float(limit)]))[0]
    centre = (MEL_CENTRES - limit).abs() > 200  # the bands at the limit itself are cut in two
    assert (standardise(trained) - standardise(narrow))[centre].abs().mean() < 0.1
    untouched = narrow_line(narrow[None], torch.tensor([8000.0]))[0]
    torch.testing.assert_close(untouched, narrow, atol=1e-3, rtol=0)
