"""Full-size unit vocoders in their own formats: SeamlessM4T v2's, and HiFi-GANs over k-means units of HuBERT
(SpeechBrain's kind).

Conditioning: units (L,), 50 a second. Their teacher, waveform → units, is a HuBERT-type encoder and k-means centroids
beside it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mmx.compat import quiet_libraries  # first: torchaudio must be mended before transformers is imported
from mmx.decoders.base import ConditioningSpec, fingerprint, freeze
from mmx.decoders.frozen import FrozenDecoder, FrozenTeacher, NoTeacher
from mmx.decoders.speech import finite_speech, said
from mmx.errors import ModelError, UsageError
from mmx.media.audio import Waveform, resample
from mmx.models.store import Located
from mmx.nets.speech import collapse

CENTROIDS = "kmeans.safetensors"  # beside the encoder: `centroids` (K, D), and its metadata's `layer`
LAYER = 6  # of a HuBERT-base, whose units suit speech (Lakhotia et al. 2021)


class UnitEncoder(FrozenTeacher):
    """Speech → the nearest centroids of a HuBERT-type encoder's hidden states.

    Frozen; it is small and computes in float32.
    """

    def __init__(self, model: nn.Module, extractor: Any, centroids: Tensor, layer: int) -> None:
        self.model, self.extractor, self.centroids, self.layer = freeze(model), extractor, centroids.float(), layer

    def to(self, device: str, dtype: torch.dtype) -> None:
        """Move it."""
        self.model.to(device)
        self.centroids = self.centroids.to(device)

    def embed(self, media: Sequence[Waveform]) -> list[Tensor]:
        """Speech of any rate → units (L,), 50 a second, on the CPU."""
        return [self.encode(wave).cpu() for wave in media]

    @torch.inference_mode()
    def encode(self, wave: Waveform) -> Tensor:
        """Speech of any rate → units (L,), 50 a second."""
        rate = self.extractor.sampling_rate
        samples = resample(wave.samples, wave.sample_rate, rate)
        inputs = self.extractor(samples, sampling_rate=rate, return_tensors="pt").input_values
        hidden = self.model(inputs.to(self.centroids.device), output_hidden_states=True).hidden_states[self.layer]
        return torch.cdist(hidden[0].float(), self.centroids).argmin(1)

    @classmethod
    def load(cls, folder: Path) -> UnitEncoder:
        """Read a transformers model folder with centroids beside the weights. Raises ModelError."""
        from transformers import AutoFeatureExtractor, AutoModel

        path = folder / CENTROIDS
        if not path.exists():
            raise ModelError(
                f"{folder.name}: it has no {CENTROIDS}, which say what the units are",
                hint="a tensor `centroids` (K, D) of the vocoder's own k-means, saved as safetensors",
            )
        quiet_libraries("transformers")
        try:
            with safe_open(path, "pt") as file:
                centroids, about = file.get_tensor("centroids"), file.metadata() or {}
            model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True, use_safetensors=True)
            extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{folder.name}: the unit encoder can't be loaded: {str(error).splitlines()[0]}") from None
        if centroids.shape[1] != model.config.hidden_size:
            raise ModelError(
                f"{folder.name}: centroids of width {centroids.shape[1]} "
                f"for hidden states of {model.config.hidden_size}"
            )
        return cls(model, extractor, centroids, int(about.get("layer", LAYER)))


class SeamlessVoice(nn.Module):
    """The unit vocoder of a SeamlessM4T v2 checkpoint: it takes units without repeats and finds their
    durations itself.
    """

    def __init__(self, vocoder: nn.Module, language: int) -> None:
        super().__init__()
        self.vocoder, self.language = vocoder, language
        config = vocoder.config
        self.units, self.rate = config.unit_hifi_gan_vocab_size, config.sampling_rate
        self.voices = tuple(str(number) for number in range(config.vocoder_num_spkrs))
        self.paced = False  # durations are its own

    def forward(self, units: Tensor, voice: int) -> Tensor:
        """Units (L,) → waveform (T,)."""
        short = collapse(units)[0][None]
        speaker, language = (torch.tensor([[value]], device=units.device) for value in (voice, self.language))
        return self.vocoder(short, speaker, language)[0].reshape(-1)

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> SeamlessVoice:
        """Of a whole checkpoint, sharded or not, only the vocoder's tensors are read."""
        from transformers import SeamlessM4Tv2Config
        from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2CodeHifiGan

        vocoder = SeamlessM4Tv2CodeHifiGan(SeamlessM4Tv2Config(**config))
        vocoder.load_state_dict(_tensors(folder, "vocoder."))
        generation = folder / "generation_config.json"
        languages = json.loads(generation.read_text(encoding="utf8")) if generation.exists() else {}
        return cls(vocoder, languages.get("vocoder_lang_code_to_id", {}).get("eng", 0))


class UnitHifiGan(nn.Module):
    """A HiFi-GAN (Kong et al. 2020) over an embedding of units (Polyak et al. 2021), in SpeechBrain's layout of
    tensors.
    """

    voices = ("0",)

    def __init__(self, units: int, width: int, rate: int, generator: dict[str, Any]) -> None:
        super().__init__()
        from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

        self.units, self.rate, self.paced = units, rate, True
        self.embedding = nn.Embedding(units, width)
        self.generator = SpeechT5HifiGan(
            SpeechT5HifiGanConfig(model_in_dim=width, sampling_rate=rate, normalize_before=False, **generator)
        )

    def forward(self, units: Tensor, voice: int) -> Tensor:
        """Units (L,) → waveform (T,)."""
        return self.generator(self.embedding(units)[None]).reshape(-1)

    @classmethod
    def load(cls, folder: Path, config: dict[str, Any]) -> UnitHifiGan:
        """config.json: model_type, units, width, sampling_rate, and SpeechT5HifiGanConfig's upsample_* and
        resblock_*.
        """
        sizes = {k: v for k, v in config.items() if k.startswith(("upsample_", "resblock_", "leaky_"))}
        vocoder = cls(config["units"], config["width"], config.get("sampling_rate", 16_000), sizes)
        # what else a checkpoint holds, such as a predictor of durations, is not asked; the mean and scale are of mels
        missing, _ = vocoder.load_state_dict(_renamed(_tensors(folder, "")), strict=False)
        missing = [name for name in missing if name not in ("generator.mean", "generator.scale")]
        if missing:
            raise KeyError(f"no tensor for {missing[0]}")
        return vocoder


def _tensors(folder: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a folder's safetensors whose names begin so, without the beginning."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        if path.name == CENTROIDS:
            continue
        with safe_open(path, "pt") as file:
            names = file.keys()  # the file itself is not iterable
            found |= {k.removeprefix(prefix): file.get_tensor(k) for k in names if k.startswith(prefix)}
    return found


def _renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """SpeechBrain's names → ours; a weight that is kept as direction and length (weight normalisation) is put
    together.
    """
    whole: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith("weight_g"):
            continue
        if name.endswith("weight_v"):
            length = tensors[name[:-1] + "g"]
            value = value * (length / value.flatten(1).norm(dim=1).view(-1, *[1] * (value.dim() - 1)))
            name = name[: -len("_v")]
        name = re.sub(r"\.conv\.", ".", name)
        if name.startswith("unit_embedding."):
            whole["embedding." + name.removeprefix("unit_embedding.")] = value
        else:
            whole["generator." + re.sub(r"^ups\.", "upsampler.", name)] = value
    return whole


KINDS: dict[str, Any] = {"seamless_m4t_v2": SeamlessVoice, "unit-hifigan": UnitHifiGan}


class UnitVocoder(FrozenDecoder):
    """A pretrained unit vocoder and, where one lies beside it, the encoder that its units come from.

    It computes in float32.
    """

    def __init__(self, vocoder: Any, encoder: UnitEncoder | None, spec: ConditioningSpec) -> None:
        unknown = NoTeacher(
            f"{spec.name}: what its units are is not known here",
            hint="give their encoder beside it: --decoder VOCODER+HUBERT",
        )
        self.vocoder, self.voices = freeze(vocoder), tuple(vocoder.voices)
        super().__init__(encoder or unknown, spec, {"voice": self.voices[0]})

    def _move(self, device: str, dtype: torch.dtype) -> None:
        self.vocoder.to(device)

    def _compile(self) -> None:
        self.vocoder.compile()

    @torch.inference_mode()
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
        name = self.defaults["voice"] if voice is None else voice
        if name not in self.voices:
            raise UsageError(
                f"--voice {name}: this decoder has no such voice", hint=f"it has 0 to {len(self.voices) - 1}"
            )
        if speed != 1.0 and not self.vocoder.paced:
            raise UsageError(f"--speed: {self.spec.name} finds its durations itself", hint="leave --speed out")
        number = self.voices.index(name)

        def draw(part: Sequence[Tensor], _draws: Sequence[torch.Generator]) -> list[Waveform]:
            with self.at_work(self.vocoder) as vocoder:
                units = [_at_speed(said(own).to(self.device), speed) for own in part]
                return [finite_speech(vocoder(own, number), vocoder.rate) for own in units]

        return self._in_batches(conditioning, generators, draw)

    @classmethod
    def load(cls, at: Located) -> UnitVocoder:
        """Read a vocoder's folder, and its encoder's. Raises ModelError when they are not what they should be."""
        try:
            config = json.loads((at.folder / "config.json").read_text(encoding="utf8"))
        except (OSError, ValueError):
            raise ModelError(f"{at.name} is no speech decoder: it has no config.json") from None
        kind = config.get("model_type", "unknown")
        if kind not in KINDS:
            raise ModelError(f"{at.name} is a {kind}", hint=f"unit vocoders are: {', '.join(KINDS)}")
        try:
            vocoder = KINDS[kind].load(at.folder, config)
        except (OSError, KeyError, ValueError, RuntimeError, SafetensorError) as error:
            raise ModelError(f"{at.name}: the vocoder can't be loaded: {str(error).splitlines()[0]}") from None
        encoder = UnitEncoder.load(at.companion) if at.companion else None
        if encoder is not None and len(encoder.centroids) != vocoder.units:
            raise ModelError(
                f"{at.name} speaks {vocoder.units} units, and the encoder beside it knows {len(encoder.centroids)}"
            )
        # what the units mean is the encoder's; without one only the vocoder can tell spaces apart
        own = fingerprint(at.companion or at.folder, (".",))
        return cls(vocoder.float(), encoder, ConditioningSpec(f"{kind}/units", (vocoder.units,), 1.0, own))


def _at_speed(units: Tensor, speed: float) -> Tensor:
    """Units (L,) said `speed` times as fast: every unit is repeated or left out evenly."""
    length = max(1, round(len(units) / speed))
    places = (torch.arange(length, device=units.device) * (len(units) / length)).long()
    return units[places]
