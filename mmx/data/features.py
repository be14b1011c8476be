"""What the frozen side computes of a file, once: each class names its space and turns bytes into the rows of the cache."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from PIL import Image, ImageOps
from torch import Tensor

from mmx.bridges.image_encoders import Eyes
from mmx.decoders.speech import SpeechDecoder
from mmx.errors import InputError
from mmx.media.audio import Waveform, read_audio, resample, tile
from mmx.media.image import read_image
from mmx.media.voice_activity import speech_part
from mmx.nets.sound import MELS, log_mel

SAMPLE_RATE = 16_000  # Hz
MIN_SECONDS = 3.0  # shorter sounds are tiled to this
MAX_SECONDS = 30.0  # longer sounds are cut to this


def sound_of(payload: bytes, name: str, *, speech: bool = False) -> Waveform:
    """Bytes → 16 kHz mono of 3 to 30 s; of a voice only the speech. Raises InputError."""
    wave = read_audio(payload, sample_rate=SAMPLE_RATE, name=name, duration=MAX_SECONDS)
    if speech:
        wave = speech_part(wave, limit=MAX_SECONDS, name=name)
    return tile(wave, int(MIN_SECONDS * SAMPLE_RATE))


class LogMels:
    """Sounds or voices → log-mel (F, 64) float16, 100 frames a second."""

    def __init__(self, *, speech: bool = False) -> None:
        self.speech = speech
        self.name = f"{'voice' if speech else 'sound'}-logmel64-v1"
        self.empty = torch.zeros(0, MELS, dtype=torch.float16)

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        return [self._one(payload, name) for payload, name in zip(payloads, names, strict=True)]

    def _one(self, payload: bytes, name: str) -> Tensor | None:
        try:
            wave = sound_of(payload, name, speech=self.speech)
        except InputError:
            return None
        return log_mel(torch.from_numpy(wave.samples)).T.contiguous().half()


class Frozen:
    """Sounds → one vector (1, C) float16 of a frozen pretrained encoder, for bridges that train a head on it."""

    def __init__(self, encoder, *, speech: bool = False) -> None:
        self.encoder, self.speech = encoder, speech
        self.name = f"{'voice' if speech else 'sound'}-{encoder.fingerprint[:16]}"
        self.empty = torch.zeros(0, encoder.dim, dtype=torch.float16)

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for payload, name in zip(payloads, names, strict=True):
            try:
                found.append(self.encoder.listen(sound_of(payload, name, speech=self.speech))[None].half())
            except InputError:
                found.append(None)
        return found


FULL_SCALE = 32_768  # of 16-bit samples


class Waves:
    """Sounds or voices → their samples (F, rate / 100) int16, 100 frames a second, for encoders that are adapted while they hear."""

    def __init__(self, rate: int, *, speech: bool = False) -> None:
        self.rate, self.speech = rate, speech
        self.name = f"{'voice' if speech else 'sound'}-pcm16-{rate}-v1"
        self.empty = torch.zeros(0, rate // 100, dtype=torch.int16)

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        return [self._one(payload, name) for payload, name in zip(payloads, names, strict=True)]

    def _one(self, payload: bytes, name: str) -> Tensor | None:
        try:
            wave = sound_of(payload, name, speech=self.speech)
        except InputError:
            return None
        samples = torch.from_numpy(resample(wave.samples, wave.sample_rate, self.rate))
        frames = (samples * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).short()
        return frames[: len(frames) // (self.rate // 100) * (self.rate // 100)].view(-1, self.rate // 100)


class Pictures:
    """Pictures through a frozen network, plain and then mirrored: rows (2 L, C) float16 of what `look` gives (L, C) or (C,) of each."""

    def __init__(
        self, name: str, look: Callable[[list[Image.Image]], Tensor], width: int, device: torch.device
    ) -> None:
        self.name, self.look, self.device = name, look, device
        self.empty = torch.zeros(0, width, dtype=torch.float16)

    @torch.inference_mode()
    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        with ThreadPoolExecutor(4) as pool:
            pictures = list(pool.map(self._picture, payloads, names))
        good = [picture for picture in pictures if picture is not None]
        if not good:
            return [None] * len(pictures)
        with torch.autocast(self.device.type, torch.bfloat16):  # training data only
            views = [self.look(view).float().cpu() for view in (good, [ImageOps.mirror(picture) for picture in good])]
        rows = iter(torch.cat([view if view.dim() == 3 else view[:, None] for view in views], dim=1).half())
        return [None if picture is None else next(rows) for picture in pictures]

    @staticmethod
    def _picture(payload: bytes, name: str) -> Image.Image | None:
        try:
            return read_image(io.BytesIO(payload), name=name)
        except InputError:
            return None


def embeddings(decoder) -> Pictures:
    """The targets of an image or face decoder: raw embeddings (2, D), plain and mirrored."""
    name = f"targets-{decoder.spec.fingerprint[:16]}"
    return Pictures(name, decoder.targets, decoder.spec.shape[0], torch.device(decoder.device))


def patches(eyes: Eyes) -> Pictures:
    """What a frozen image encoder sees in pictures: patches (2 P, C), plain and mirrored."""
    return Pictures(f"patches-{eyes.fingerprint[:16]}", eyes.look, eyes.width, eyes.device)


class Units:
    """Speech → discrete units (L,) int16 of a speech decoder."""

    empty = torch.zeros(0, dtype=torch.int16)

    def __init__(self, decoder: SpeechDecoder) -> None:
        self.decoder = decoder
        self.name = f"units-{decoder.spec.fingerprint[:16]}"

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        found: list[Tensor | None] = []
        for payload, name in zip(payloads, names, strict=True):
            try:
                wave = read_audio(payload, sample_rate=SAMPLE_RATE, name=name, duration=MAX_SECONDS)
                found.append(self.decoder.targets([wave])[0].short().cpu())
            except InputError:
                found.append(None)
        return found
