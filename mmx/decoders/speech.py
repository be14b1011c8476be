"""The speech decoder: discrete units → log-mel → waveform; its teacher is the way back, waveform → units."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmx.compat import quiet_libraries
from mmx.decoders.base import ConditioningSpec, fingerprint, freeze
from mmx.decoders.frozen import FrozenDecoder, FrozenTeacher
from mmx.device import threads_for
from mmx.errors import ModelError, NonFiniteError, UsageError
from mmx.media.audio import Waveform, resample
from mmx.models.store import Located
from mmx.nets.speech import SAMPLE_RATE, UnitCodec, Vocos, speech_mel

PARTS = ("units", "vocoder")
SPACE = ("units",)  # another vocoder says the same units
LEVEL = -23.0  # dB, the root mean square over the voiced part that every utterance is brought to
PEAK = 0.9  # of full scale, above which nothing goes
EDGE = 0.008  # seconds of fade at either end, so that neither clicks


class CodecTeacher(FrozenTeacher):
    """Speech → the units of a codec."""

    def __init__(self, codec: UnitCodec) -> None:
        self.codec = codec

    @torch.inference_mode()
    def embed(self, media: Sequence[Waveform]) -> list[Tensor]:
        """Speech of any rate → its units (L,), about 31 a second, on the CPU."""
        device = self.codec.mean.device
        waves = [torch.from_numpy(resample(w.samples, w.sample_rate, SAMPLE_RATE))[None] for w in media]
        return [self.codec.encode(speech_mel(wave.to(device)))[0].cpu() for wave in waves]


class SpeechDecoder(FrozenDecoder):
    """A unit codec's decoder and a vocoder.

    Conditioning: units (L,), integers. The parts are small and always compute in float32.
    """

    def __init__(
        self,
        codec: UnitCodec,
        vocoder: nn.Module,
        spec: ConditioningSpec,
        voices: Sequence[str],
        defaults: dict[str, Any],
    ) -> None:
        super().__init__(CodecTeacher(codec), spec, defaults)
        self.codec, self.vocoder, self.voices = freeze(codec), freeze(vocoder), tuple(voices)

    def _move(self, device: str, dtype: torch.dtype) -> None:
        self.codec.to(device)
        self.vocoder.to(device)

    def _compile(self) -> None:
        self.vocoder.compile()

    def voice(self, name: str | None) -> int:
        """A voice's number. Raises UsageError for one that this decoder does not have."""
        name = self.defaults["voice"] if name is None else name
        if name not in self.voices:
            raise UsageError(
                f"--voice {name}: this decoder has no such voice", hint=f"it has: {', '.join(self.voices)}"
            )
        return self.voices.index(name)

    @torch.inference_mode()
    def mel(self, units: Tensor, *, voice: str | None = None, speed: float = 1.0) -> Tensor:
        """Units (L,) → log10-mel (F, 80). speed 2 is twice as fast: the code vectors are resampled in time."""
        number = torch.tensor([self.voice(voice)], device=self.device)
        with self.at_work(self.codec) as codec:
            codes = codec.book.rows[units.to(self.device)][None]
            if speed != 1.0:
                length = max(2, round(codes.shape[1] / speed))
                codes = F.interpolate(codes.transpose(1, 2), size=length, mode="linear", align_corners=True).transpose(
                    1, 2
                )
            return codec.render(codes, number)[0].cpu()

    @torch.inference_mode()
    def vocode(self, mel: Tensor) -> Waveform:
        """Log10-mel (F, 80) → speech. Raises NonFiniteError."""
        with self.at_work(self.vocoder) as vocoder:
            return finite_speech(vocoder(mel[None].to(self.device)))

    def decode(
        self,
        conditioning: Sequence[Tensor],
        *,
        generators: Sequence[torch.Generator] = (),
        voice: str | None = None,
        speed: float = 1.0,
    ) -> list[Waveform]:
        """Units, one tensor (L,) an utterance → waveforms at 16 kHz.

        Nothing here is random: `generators` are not used.
        """

        def draw(part: Sequence[Tensor], _draws: Sequence[torch.Generator]) -> list[Waveform]:
            with threads_for(self.codec, self.vocoder):
                return [self.vocode(self.mel(said(units), voice=voice, speed=speed)) for units in part]

        return self._in_batches(conditioning, generators, draw)

    @classmethod
    def load(cls, at: Located | Path) -> SpeechDecoder:
        """Read a decoder folder; a companion is another vocoder for its mels.

        Raises ModelError when they are not what they should be.
        """
        folder, vocoder = (at, None) if isinstance(at, Path) else (at.folder, at.companion)
        about = folder / "mmx.json"
        settings = json.loads(about.read_text(encoding="utf8")) if about.exists() else {}
        if settings.get("family") != "speech":
            raise ModelError(f"{folder} is not a speech decoder", hint="mmx train-decoder speech makes one")
        codec = UnitCodec(**json.loads((folder / "units" / "config.json").read_text(encoding="utf8")))
        codec.load_state_dict(load_file(folder / "units" / "model.safetensors"))
        spec = ConditioningSpec.from_dict(settings["spec"] | {"fingerprint": fingerprint(folder, SPACE)})
        return cls(
            codec.float(), load_vocoder(vocoder or folder / "vocoder"), spec, settings["voices"], settings["defaults"]
        )


def load_vocoder(folder: Path) -> nn.Module:
    """A vocoder's folder → a module from log10-mel (B, F, 80) to waveforms (B, 256 F): ours, or transformers'
    SpeechT5HifiGan. Raises ModelError.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf8"))
        if "SpeechT5HifiGan" in (config.get("architectures") or []):
            from transformers import SpeechT5HifiGan

            quiet_libraries("transformers")
            vocoder = SpeechT5HifiGan.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        else:
            vocoder = Vocos(**config)
            vocoder.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{folder.name}: the vocoder can't be read: {str(error).splitlines()[0]}") from None
    if not all(torch.isfinite(value).all() for value in vocoder.state_dict().values()):
        raise NonFiniteError(f"{folder.name}: the vocoder's weights hold NaN or infinity")
    return vocoder.float()


def save_speech_decoder(
    folder: Path, codec: UnitCodec, vocoder: Vocos, configs: dict[str, dict], voices: Sequence[str], name: str
) -> None:
    """Write the folder that `SpeechDecoder.load` reads. Weights are stored as float16, the codebook as float32.

    configs: the keyword arguments that made each part.
    """
    for part, module in (("units", codec), ("vocoder", vocoder)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(configs[part], indent=1), encoding="utf8")
        # a code that moves by a rounding error would be another unit
        tensors = {
            key: (value if key.startswith("book.") else value.half()).contiguous()
            for key, value in module.state_dict().items()
        }
        save_file(tensors, folder / part / "model.safetensors")
    spec = ConditioningSpec(name, (len(codec.book.rows),), 1.0, fingerprint(folder, SPACE))
    about = {"family": "speech", "spec": spec.as_dict(), "voices": list(voices), "defaults": {"voice": voices[0]}}
    (folder / "mmx.json").write_text(json.dumps(about, indent=1), encoding="utf8")


def polished(samples: np.ndarray) -> np.ndarray:
    """Speech at one loudness, below full scale, without a click at either end. (T,) float32."""
    samples = samples - samples.mean()
    width = min(400, len(samples))
    power = np.convolve(samples.astype(np.float64) ** 2, np.ones(width) / width, mode="same")
    loud = samples[power > 0.05 * power.max()]  # pauses do not count
    level = np.sqrt(np.mean(np.square(loud, dtype=np.float64))) + 1e-9
    samples = samples * (10 ** (LEVEL / 20) / level)
    peak = np.abs(samples).max()
    if peak > PEAK:
        samples = samples * (PEAK / peak)
    edge = min(int(EDGE * SAMPLE_RATE), len(samples) // 2)
    ramp = np.sin(np.linspace(0, np.pi / 2, edge)) ** 2
    samples[:edge] *= ramp
    samples[len(samples) - edge :] *= ramp[::-1]
    return samples.astype(np.float32)


def said(units: Tensor) -> Tensor:
    """Units (L,), of which there must be some. Raises UsageError."""
    if units.numel() == 0:
        raise UsageError("there are no units to say")
    return units


def finite_speech(samples: Tensor, rate: int = SAMPLE_RATE) -> Waveform:
    """A vocoder's output (..., T) at `rate` → polished speech at 16 kHz. Raises NonFiniteError."""
    array = samples.reshape(-1).float().cpu().numpy()
    if not np.isfinite(array).all():
        raise NonFiniteError("the vocoder produced values that are not numbers", hint="try another --decoder")
    return Waveform(polished(resample(array, rate, SAMPLE_RATE)), SAMPLE_RATE)
