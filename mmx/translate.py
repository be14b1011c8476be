"""A bridge and the decoder it was trained for: source media in, target media out."""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.bridges.base import Bridge
from mmx.bridges.sight import SightBridge
from mmx.bridges.sound import SoundBridge
from mmx.bridges.voice import VoiceBridge
from mmx.decoders.base import Decoder, fingerprint
from mmx.decoders.image import SPACE, ImageDecoder
from mmx.decoders.speech import SpeechDecoder
from mmx.decoders.teacher import Teacher
from mmx.errors import SilenceError, UsageError
from mmx.media.audio import Waveform, gained, mixed, read_audio, resample
from mmx.media.image import read_image, to_rgb
from mmx.media.speech import speech_part
from mmx.nets.sound import SAMPLE_RATE
from mmx.nets.writer import Sampling
from mmx.store import Located, locate

WINDOW = 5.0  # seconds: of a longer recording, its loudest stretch of this length is heard
SPEECH = 10.0  # seconds of speech that a voice is judged by


@dataclass(frozen=True)
class Blend:
    """Something else to put in, and how much of it: 0 is nothing of it, 1 nothing but it."""

    medium: Any
    weight: float = 0.5


@dataclass
class Translation:
    """What became of one source: pictures or utterances, what was heard, and seconds by stage."""

    media: list[Any]
    heard: list[tuple[str, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def generator_for(seed: int, index: int) -> torch.Generator:
    """The CPU generator of the `index`-th result of any source. It knows nothing of the batch, so neither does the result."""
    # hashed: neighbouring seeds with few bits set leave the generator in poor, similar states
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Spherical interpolation of two vectors (D,), from a at t = 0 to b at t = 1; norms are interpolated linearly."""
    norm = (1 - t) * a.norm() + t * b.norm()
    a, b = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
    angle = torch.arccos((a @ b).clamp(-0.9999, 0.9999))
    return norm * (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / torch.sin(angle)


class Translator:
    """`translator(sources, num=4, seed=0)`. The weights are loaded once, by `load`. This one turns sounds into pictures."""

    bridge_kind: type[Bridge] = SoundBridge
    decoder_kind: type = ImageDecoder
    notice = ""  # what every artifact has to say beyond being synthetic
    libraries: tuple[str, ...] = ()  # that the bytes depend on, beyond those of every translator
    options: tuple[str, ...] = (
        "steps",
        "guidance",
        "size",
        "gain",
        "frames",
    )  # of a job's settings, what `translate` takes

    def __init__(self, task: str, bridge: Bridge, decoder: Decoder, *, bridge_at: Located, decoder_at: Located) -> None:
        bridge.spec.require(decoder.spec, bridge=bridge_at.name)
        self.task, self.bridge, self.decoder = task, bridge, decoder
        self.bridge_at, self.decoder_at = bridge_at, decoder_at
        self.encoder_at: Located | None = None
        self._labels = list(bridge.config.labels)
        self._label_points = decoder.teacher.embed_texts(list(bridge.config.labels.values())) if self._labels else None

    @property
    def models(self) -> dict[str, Located]:
        """Where each of its models is, by role."""
        found = {"bridge": self.bridge_at, "decoder": self.decoder_at}
        return found | ({"encoder": self.encoder_at} if self.encoder_at else {})

    def read(
        self, source: Any, *, start: float | None = None, duration: float | None = None, name: str | None = None
    ) -> Waveform:
        """A path, bytes, a Waveform, or (samples, rate) → 16 kHz mono. Raises InputError."""
        if isinstance(source, tuple):
            source = Waveform(np.asarray(source[0], dtype=np.float32), int(source[1]))
        if isinstance(source, Waveform):
            return Waveform(resample(source.samples, source.sample_rate, SAMPLE_RATE), SAMPLE_RATE)
        return read_audio(source, sample_rate=SAMPLE_RATE, start=start, duration=duration, window=WINDOW, name=name)

    @torch.inference_mode()
    def point(self, waveform: Waveform) -> Tensor:
        """A waveform → its point (D,) of the joint space, unit norm."""
        return self.bridge(self.bridge.prepare(waveform)[None])[0]

    def label_points(self) -> Tensor:
        """The labels' texts in the joint space, unit norm (K, D)."""
        return self._label_points

    def notes(self, name: str, sound: Waveform) -> list[str]:
        """What the user should know of an input that is fine but unusual."""
        found = []
        if sound.seconds < 1.0:
            found.append(f"{name}: only {sound.seconds:.2f} s of sound; it is repeated to fill the window")
        if sound.rms_db < -55:
            found.append(f"{name}: very quiet ({sound.rms_db:.0f} dB); what is heard may be noise")
        return found

    def hear(self, point: Tensor, top: int = 3) -> list[tuple[str, float]]:
        """The bridge's labels nearest to a point, with probabilities over all its labels."""
        if self._label_points is None:
            return []
        shares = (self._label_points @ point * self.bridge.config.logit_scale).softmax(0)
        best = shares.topk(min(top, len(self._labels)))
        return [
            (self._labels[i], round(p, 4)) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def conditioning(
        self, point: Tensor, seed: int, index: int, image: Blend | None = None
    ) -> tuple[Tensor, torch.Generator]:
        """The raw conditioning (D,) of the `index`-th result, and the generator that the decoder goes on with."""
        generator = generator_for(seed, index)
        sample = self.bridge.sample(point, generator)
        if image is not None:
            own = self.decoder.targets([image.medium])[0]
            sample = slerp(own, sample, 1 - image.weight)
        return sample, generator

    def translate(
        self,
        waveform: Waveform | Sequence[Waveform],
        *,
        indices: Sequence[int] = (0,),
        seed: int = 0,
        steps: int | None = None,
        guidance: float | None = None,
        size: int | None = None,
        gain: float = 0.0,
        mix: Sequence[Blend] = (),
        image: Blend | None = None,
        interpolate: Waveform | None = None,
        frames: int = 8,
    ) -> Translation:
        """One sound → a picture for each of `indices`, or, with `interpolate`, the `frames` pictures on the way to another sound.

        Several sounds are averaged in the space. gain: dB, applied before mixing. mix: other sounds, heard at the same time. image: a picture to edit toward the sound.
        """
        started = time.perf_counter()
        together = [waveform] if isinstance(waveform, Waveform) else list(waveform)
        if gain:
            together = [gained(wave, gain) for wave in together]
        if mix:
            together = [self._mixed(wave, mix, gain) for wave in together]
        point = F.normalize(torch.stack([self.point(wave) for wave in together]).mean(0), dim=-1)
        points = [(point, index) for index in indices]
        if interpolate is not None:
            other = self.point(interpolate)
            points = [(slerp(point, other, k / max(1, frames - 1)), 0) for k in range(frames)]
        drawn = [self.conditioning(p, seed, index, image) for p, index in points]
        bridged = time.perf_counter()
        media = self.decoder.decode(
            torch.stack([c for c, _ in drawn]),
            generators=[g for _, g in drawn],
            steps=steps,
            guidance=guidance,
            size=size,
        )
        return Translation(
            media, self.hear(point), {"bridge": bridged - started, "decode": time.perf_counter() - bridged}
        )

    @staticmethod
    def _mixed(waveform: Waveform, mix: Sequence[Blend], gain: float) -> Waveform:
        own = 1 - sum(blend.weight for blend in mix)
        if own <= 0:
            raise UsageError("the weights of --mix leave nothing of the input", hint="their sum must stay below 1")
        return mixed(
            [waveform, *(blend.medium for blend in mix)], [own * 10 ** (gain / 20), *(blend.weight for blend in mix)]
        )

    def __call__(
        self,
        sources: Any,
        *,
        num: int = 1,
        seed: int = 0,
        start: float | None = None,
        duration: float | None = None,
        mix: Sequence[tuple[Any, float]] = (),
        image: tuple[Any, float] | None = None,
        interpolate: Any = None,
        **options: Any,
    ) -> list:
        """A source, or a list of them → `num` pictures, or a list of such lists. `options` are those of `translate`."""
        several = isinstance(sources, list)
        blends = [Blend(self.read(medium), weight) for medium, weight in mix]
        picture = None
        if image is not None:
            medium = image[0] if isinstance(image[0], Image.Image) else read_image(image[0])
            picture = Blend(medium, image[1])
        other = None if interpolate is None else self.read(interpolate)
        results = [
            self.translate(
                self.read(source, start=start, duration=duration),
                indices=range(num),
                seed=seed,
                mix=blends,
                image=picture,
                interpolate=other,
                **options,
            ).media
            for source in (sources if several else [sources])
        ]
        return results if several else results[0]


class VoiceTranslator(Translator):
    """Turns a voice into faces that such a voice might have."""

    bridge_kind = VoiceBridge
    notice = (
        "The face is a plausible average for such a voice, not the speaker; it identifies nobody. The training labels are "
        "binary and the people in the data skewed. Nothing of the voice is stored."
    )
    libraries = ("silero-vad",)

    def read(
        self, source: Any, *, start: float | None = None, duration: float | None = None, name: str | None = None
    ) -> Waveform:
        """A path, bytes, a Waveform, or (samples, rate) → the speech in it, 16 kHz mono, up to 10 s. Raises InputError."""
        name = name or (str(source) if isinstance(source, str | Path) else "input")
        if isinstance(source, tuple | Waveform):
            return speech_part(super().read(source), limit=SPEECH, name=name)
        try:
            wave = read_audio(source, sample_rate=SAMPLE_RATE, start=start, duration=duration, window=60.0, name=name)
        except SilenceError as error:
            raise SilenceError(f"{name}: no speech found: it is digital silence", error.hint) from None
        return speech_part(wave, limit=SPEECH, name=name)

    def notes(self, name: str, sound: Waveform) -> list[str]:
        if sound.seconds < 3.0:
            return [f"{name}: only {sound.seconds:.1f} s of speech; 3 s and more suggest more"]
        return []

    def hear(self, point: Tensor, top: int = 3) -> list[tuple[str, float]]:
        """What the voice suggests: the data's genders, with probabilities."""
        return self.decoder.teacher.suggest(point * self.decoder.spec.mean_norm)[:top]


class SightTranslator(Translator):
    """Turns a picture into speech about it, with no text in between."""

    bridge_kind = SightBridge
    decoder_kind = SpeechDecoder
    options = ("beam", "temperature", "top_p", "speed", "voice")

    def read(
        self, source: Any, *, start: float | None = None, duration: float | None = None, name: str | None = None
    ) -> Image.Image:
        """A path, bytes or a picture → RGB. Raises InputError. `start` and `duration` mean nothing here."""
        if isinstance(source, Image.Image):
            return to_rgb(source)
        return read_image(io.BytesIO(source) if isinstance(source, bytes) else source, name=name)

    def notes(self, name: str, picture: Image.Image) -> list[str]:
        if all(low == high for low, high in picture.getextrema()):
            return [f"{name}: one flat colour; what is said of it means nothing"]
        return []

    def hear(self, point: Tensor, top: int = 3) -> list[tuple[str, float]]:
        """No words are known on this path, so there is nothing to report."""
        return []

    @torch.inference_mode()
    def translate(
        self,
        picture: Image.Image | Sequence[Image.Image],
        *,
        indices: Sequence[int] = (0,),
        seed: int = 0,
        beam: int = 1,
        temperature: float | None = None,
        top_p: float = 0.9,
        speed: float = 1.0,
        voice: str | None = None,
    ) -> Translation:
        """One picture → an utterance (16 kHz) for each of `indices`.

        beam: width of the beam search, 1 is none. temperature: 0 takes the likeliest unit each time; absent, the first result is
        greedy and the others are drawn at 0.8. speed: 2 is twice as fast.
        """
        started = time.perf_counter()
        picture = picture if isinstance(picture, Image.Image) else next(iter(picture))
        features = self.bridge.prepare(picture)
        units = []
        for index in indices:
            heat = (0.8 if index and beam == 1 else 0.0) if temperature is None else temperature
            units.append(self.bridge.write(features, Sampling(beam, heat, top_p), generator_for(seed, index)))
        written = time.perf_counter()
        media = self.decoder.decode(units, voice=voice, speed=speed)
        return Translation(media, [], {"bridge": written - started, "decode": time.perf_counter() - written})


TRANSLATORS: dict[str, type[Translator]] = {
    "sound2img": Translator,
    "voice2face": VoiceTranslator,
    "img2speech": SightTranslator,
}


def pick_device(device: str) -> str:
    """ "auto" → the best device here. Raises UsageError for one that is not here."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind = device.split(":")[0]
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in here:
        raise UsageError(f"--device {device}: no such kind of device", hint="auto, cpu, cuda, cuda:N or mps")
    if not here[kind]:
        raise UsageError(
            f"--device {device}: this torch sees no such device here", hint="--device auto takes what there is"
        )
    return device


@lru_cache(maxsize=4)
def load(
    task: str,
    *,
    bridge: str | None = None,
    decoder: str | None = None,
    encoder: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Translator:
    """The translator of a command, such as load("sound2img"). Loaded once for each set of arguments.

    bridge, decoder, encoder: a folder, or None for the starter; only img2speech has an encoder, the image decoder that it looks
    with. dtype: "auto" is fp32 on the CPU and fp16 elsewhere.
    Raises ModelError, UsageError.
    """
    if task not in TRANSLATORS:
        raise UsageError(f"no translator is called {task}", hint=f"there are: {', '.join(TRANSLATORS)}")
    translator = TRANSLATORS[task]
    if dtype not in ("auto", "fp32", "bf16", "fp16"):
        raise UsageError(f"--dtype {dtype}: no such type", hint="auto, fp32, bf16 or fp16")
    where = pick_device(device)
    bridge_at, decoder_at = locate(bridge, task, "bridge"), locate(decoder, task, "decoder")
    loaded = translator.decoder_kind.load(decoder_at.folder)
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(
        dtype, torch.float32 if where == "cpu" else torch.float16
    )
    loaded.to(where, kind)
    own, encoder_at = translator.bridge_kind.load(bridge_at.folder), None
    if isinstance(own, SightBridge):
        encoder_at = locate(encoder, task, "encoder")
        own.look_with(Teacher.load(encoder_at.folder / "teacher"), fingerprint(encoder_at.folder, SPACE))
    ready = translator(task, own, loaded, bridge_at=bridge_at, decoder_at=decoder_at)
    ready.encoder_at = encoder_at
    return ready
