"""How a source is heard or seen: media → features, the same for a bridge at work and for the cache that it is trained
from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Protocol

import PIL.Image
import torch
import torch.nn.functional as F
from PIL import ImageOps
from torch import Tensor, nn

from mmx.bridges.audio_encoders import Listener
from mmx.bridges.image_encoders import ImageEncoder
from mmx.device import autocast, threads_for
from mmx.errors import InputError
from mmx.media.audio import Waveform, read_audio, resample, tile
from mmx.media.image import read_image
from mmx.media.voice_activity import speech_part
from mmx.nets.sound import FRAMES, HOP, MELS, SAMPLE_RATE, log_mel, standardise

SECONDS = 3  # of a window; shorter sounds are tiled to this
MAX_SECONDS = 30.0  # of a sound in the cache; longer ones are cut
WINDOWS = {"sound": 3, "voice": 4}  # of one clip, evenly spread, whose points are averaged
FULL_SCALE = 32_768  # of 16-bit samples

assert HOP * FRAMES == SAMPLE_RATE * SECONDS


class Cached(Protocol):
    """Rows of the cache by number, of which a stretch can be read."""

    def get(self, index: int, start: int = 0, count: int = 1 << 62) -> Tensor: ...

    def length(self, index: int) -> int: ...


class Frontend(Protocol):
    """What a kind of source is for a bridge: one medium, one row of the cache, one training example.

    name: of the space in the cache. empty: a row (0, ...) of it. count: W, how many windows of a medium are looked at.
    networks: the frozen networks that it looks or listens with.
    can_mix: whether features are log-mels, in which sounds add up, and bands and stretches can be silenced.
    """

    name: str
    empty: Tensor
    count: int
    can_mix: bool
    networks: tuple[nn.Module, ...]

    def prepare(self, medium: Any) -> Tensor:
        """A medium → features (W, ...), float32, on the CPU."""

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        """Files → rows (L, ...) of the cache; None for what can't be used."""

    def crop(self, rows: Cached, pick: int, place: float) -> Tensor:
        """A part of row `pick`, where `place` in [0, 1) says (...): what one training example is made of."""

    def finish(self, crops: Tensor) -> Tensor:
        """Crops (B, ...), float32, mixed and changed or not → what the bridge's encoder takes."""

    def windows(self, row: Tensor) -> Tensor:
        """A whole row (L, ...) → features (W, ...), as `prepare` gives them of its medium."""


def sound_of(payload: bytes, name: str, *, voice: bool = False) -> Waveform:
    """Bytes → 16 kHz mono of 3 to 30 s; of a voice only the speech. Raises InputError."""
    wave = read_audio(payload, sample_rate=SAMPLE_RATE, name=name, duration=MAX_SECONDS)
    if voice:
        wave = speech_part(wave, limit=MAX_SECONDS, name=name)
    return tile(wave, SECONDS * SAMPLE_RATE)


class OfSounds:
    """What is the same for all ways to hear a sound or a voice."""

    can_mix: ClassVar[bool] = False
    networks: tuple[nn.Module, ...] = ()

    def __init__(self, *, voice: bool) -> None:
        self.voice, self.kind = voice, "voice" if voice else "sound"
        self.count = WINDOWS[self.kind]

    def row(self, wave: Waveform) -> Tensor:
        """A waveform of `sound_of` → its row (L, ...) in the cache."""
        raise NotImplementedError

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        """Files → rows (L, ...) of the cache; None for what can't be used."""
        return [self._row_or_none(payload, name) for payload, name in zip(payloads, names, strict=True)]

    def _row_or_none(self, payload: bytes, name: str) -> Tensor | None:
        try:
            return self.row(sound_of(payload, name, voice=self.voice))
        except InputError:
            return None

    def finish(self, crops: Tensor) -> Tensor:
        """Crops (B, ...) as they are."""
        return crops

    def _starts(self, length: int, window: int) -> list[int]:
        """Where `count` windows begin that are spread evenly over `length`."""
        return torch.linspace(0, max(0, length - window), self.count).round().long().tolist()


class LogMel(OfSounds):
    """Standardised log-mel windows of 3 s (W, 64, 300); in the cache log-mels (F, 64) float16, 100 frames a second."""

    can_mix = True

    def __init__(self, *, voice: bool = False) -> None:
        super().__init__(voice=voice)
        self.name = f"{self.kind}-logmel64-v2"
        self.empty = torch.zeros(0, MELS, dtype=torch.float16)

    @torch.inference_mode()
    def prepare(self, medium: Waveform) -> Tensor:
        """A 16 kHz mono waveform, tiled where it is short → (W, 64, 300)."""
        return self._windows(log_mel(torch.from_numpy(tile(medium, SECONDS * SAMPLE_RATE).samples)))

    def row(self, wave: Waveform) -> Tensor:
        return log_mel(torch.from_numpy(wave.samples)).T.contiguous().half()

    def crop(self, rows: Cached, pick: int, place: float) -> Tensor:
        """3 s of a log-mel (64, 300), not standardised yet: only so can sounds be mixed."""
        return rows.get(pick, int(place * (rows.length(pick) - FRAMES + 1)), FRAMES).T

    def finish(self, crops: Tensor) -> Tensor:
        """Log-mels (B, 64, 300) → standardised."""
        return standardise(crops)

    def windows(self, row: Tensor) -> Tensor:
        return self._windows(row.float().T)

    def _windows(self, mel: Tensor) -> Tensor:
        """A log-mel (64, F) → (W, 64, 300)."""
        return torch.stack([standardise(mel[:, s : s + FRAMES]) for s in self._starts(mel.shape[-1], FRAMES)])


class FrozenVector(OfSounds):
    """One vector (1, C) that a frozen pretrained encoder makes of the whole sound; in the cache as float16."""

    def __init__(self, encoder: Listener, *, voice: bool = False) -> None:
        super().__init__(voice=voice)
        self.encoder, self.count, self.networks = encoder, 1, (encoder.model,)
        self.name = f"{self.kind}-{encoder.fingerprint[:16]}"
        self.empty = torch.zeros(0, encoder.dim, dtype=torch.float16)

    def prepare(self, medium: Waveform) -> Tensor:
        """A 16 kHz mono waveform, tiled where it is short → (1, C)."""
        return self.encoder.listen(tile(medium, SECONDS * SAMPLE_RATE))[None]

    def row(self, wave: Waveform) -> Tensor:
        return self.encoder.listen(wave)[None].half()

    def crop(self, rows: Cached, pick: int, place: float) -> Tensor:
        """The vector (C,), wherever `place` is."""
        return rows.get(pick)[0]

    def windows(self, row: Tensor) -> Tensor:
        return row.float()


class Wave(OfSounds):
    """Windows of 3 s of the waveform itself (W, T), for an encoder that is adapted while it hears; in the cache (F,
    rate / 100) int16."""

    def __init__(self, encoder: Listener, *, voice: bool = False) -> None:
        super().__init__(voice=voice)
        self.encoder, self.frame, self.networks = encoder, encoder.rate // 100, (encoder.model,)
        self.name = f"{self.kind}-pcm16-{encoder.rate}-v1"
        self.empty = torch.zeros(0, self.frame, dtype=torch.int16)

    @torch.inference_mode()
    def prepare(self, medium: Waveform) -> Tensor:
        """A 16 kHz mono waveform, tiled where it is short → (W, T) at the encoder's rate."""
        return self._windows(self._resampled(tile(medium, SECONDS * SAMPLE_RATE)))

    def row(self, wave: Waveform) -> Tensor:
        frames = (self._resampled(wave) * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1).short()
        return frames[: len(frames) // self.frame * self.frame].view(-1, self.frame)

    def crop(self, rows: Cached, pick: int, place: float) -> Tensor:
        """3 s of samples (T,)."""
        return rows.get(pick, int(place * (rows.length(pick) - FRAMES + 1)), FRAMES).flatten() / FULL_SCALE

    def windows(self, row: Tensor) -> Tensor:
        return self._windows(row.float().flatten() / FULL_SCALE)

    def _resampled(self, wave: Waveform) -> Tensor:
        return torch.from_numpy(resample(wave.samples, wave.sample_rate, self.encoder.rate))

    def _windows(self, samples: Tensor) -> Tensor:
        """Samples (T',) → (W, T)."""
        length = SECONDS * self.encoder.rate
        cuts = [samples[start : start + length] for start in self._starts(len(samples), length)]
        return torch.stack([F.pad(cut, (0, length - len(cut))) for cut in cuts])


class Image:
    """A frozen image encoder's patches of a picture and of its mirror image (2, P, C); in the cache (2 P, C)
    float16."""

    can_mix, count = False, 2

    def __init__(self, encoder: ImageEncoder) -> None:
        self.encoder, self.networks = encoder, (encoder.network,)
        self.name = f"patches-{encoder.fingerprint[:16]}"
        self.empty = torch.zeros(0, encoder.width, dtype=torch.float16)

    @torch.inference_mode()
    def prepare(self, medium: PIL.Image.Image) -> Tensor:
        """An RGB picture of any size → (2, P, C)."""
        with threads_for(*self.networks, items=2):
            return self.encoder.both_ways(medium).cpu()

    def encode(self, payloads: Sequence[bytes], names: Sequence[str]) -> list[Tensor | None]:
        return plain_and_mirrored(payloads, names, self.encoder.look, self.encoder.device)

    def crop(self, rows: Cached, pick: int, place: float) -> Tensor:
        """Patches (P, C) of the picture or of its mirror image."""
        half = rows.length(pick) // 2
        return rows.get(pick, half * int(2 * place), half)

    def finish(self, crops: Tensor) -> Tensor:
        """Patches (B, P, C) as they are."""
        return crops

    def windows(self, row: Tensor) -> Tensor:
        return row.float().unflatten(0, (2, -1))


@torch.inference_mode()
def plain_and_mirrored(
    payloads: Sequence[bytes],
    names: Sequence[str],
    look: Callable[[list[PIL.Image.Image]], Tensor],
    device: torch.device,
) -> list[Tensor | None]:
    """Picture files → rows (2 L, C) float16 of what a frozen network gives of them (L, C) or (C,), plain and then
    mirrored."""
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(_picture_or_none, payloads, names))
    good = [picture for picture in pictures if picture is not None]
    if not good:
        return [None] * len(pictures)
    with autocast(device):  # training data only
        views = [look(view).float().cpu() for view in (good, [ImageOps.mirror(picture) for picture in good])]
    rows = iter(torch.cat([view if view.dim() == 3 else view[:, None] for view in views], dim=1).half())
    return [None if picture is None else next(rows) for picture in pictures]


def _picture_or_none(payload: bytes, name: str) -> PIL.Image.Image | None:
    try:
        return read_image(payload, name=name)
    except InputError:
        return None
