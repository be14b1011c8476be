"""Frozen pretrained audio encoders of the transformers library, for bridges that train a small head on what they
hear."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmx.compat import quiet_libraries  # first: torchaudio must be mended before transformers is imported
from mmx.decoders.base import fingerprint, freeze
from mmx.errors import ModelError
from mmx.media.audio import Waveform, loudest, resample
from mmx.models.store import Located

PERCEPTION = ("pe_audio", "pe_audio_video")  # of the second, the audio model is taken
KINDS = ("clap", "audio-spectrogram-transformer", "hubert", "wavlm", "wav2vec2", *PERCEPTION)


class Listener:
    """Sounds → one vector (C,): CLAP's and the Perception Encoder's (PE-AV, Vyas et al. 2025) projected embedding,
    AST's pooled output, or the mean over time of a speech encoder's last layer."""

    def __init__(self, model, extractor, kind: str, dim: int, fingerprint: str, at: Located) -> None:
        self.model, self.extractor, self.kind = freeze(model), extractor, kind
        self.dim, self.fingerprint, self.name, self.folder = dim, fingerprint, at.name, at.folder

    @property
    def hearing(self) -> torch.nn.Module:
        """The part of the model that hears: all of it, but where it reads texts, too."""
        if self.kind in PERCEPTION:
            return self.model.audio_encoder
        return self.model.audio_model if self.kind == "clap" else self.model

    @property
    def rate(self) -> int:
        """The sample rate that the encoder hears, in Hz."""
        return self.extractor.sampling_rate

    @torch.inference_mode()
    def listen(self, wave: Waveform) -> Tensor:
        """Mono sound → (C,) float32, on the CPU."""
        return self.embed(torch.from_numpy(resample(wave.samples, wave.sample_rate, self.rate))[None])[0].cpu()

    def embed(self, waves: Tensor) -> Tensor:
        """Waveforms (B, T) at `rate` → (B, C) float32. Gradients flow, where something in the model is trained."""
        rows = list(waves.cpu().numpy())
        if self.kind == "clap":  # of a longer clip its extractor would take a random part
            rows = [loudest(row, int(self.extractor.max_length_s * self.rate)) for row in rows]
        inputs = self.extractor(rows, sampling_rate=self.rate, return_tensors="pt")
        inputs = {name: value.to(self.model.device) for name, value in inputs.items() if torch.is_tensor(value)}
        if self.kind == "clap":
            return self.model.get_audio_features(**inputs).pooler_output.float()
        if self.kind in PERCEPTION:
            return self.model.get_audio_embeds(**inputs).float()
        outputs = self.model(**inputs)
        if self.kind == "audio-spectrogram-transformer":
            return outputs.pooler_output.float()
        return outputs.last_hidden_state.mean(1).float()

    @property
    def logit_scale(self) -> float:
        """CLAP's inverse temperature between sounds and texts."""
        return float(self.model.logit_scale_a.exp())

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → CLAP's projected embeddings (B, C), float32, on the CPU. Raises ModelError where it reads none."""
        if self.kind != "clap":
            raise ModelError(f"{self.name} reads no texts", hint="a CLAP model does")
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.name}: its tokenizer can't be loaded: {str(error).splitlines()[0]}") from None
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        return self.model.get_text_features(**tokens).pooler_output.float().cpu()

    @classmethod
    def load(cls, at: Located, device: str = "cpu") -> Listener:
        """Read a transformers model folder. Raises ModelError when it is none of `KINDS`."""
        from transformers import AutoFeatureExtractor

        kind = kind_of(at.folder)
        if kind not in KINDS:
            raise ModelError(f"{at.name} is a {kind} model", hint=f"an audio encoder is one of {', '.join(KINDS)}")
        try:
            model = _open(at.folder, kind).to(device)
            extractor = AutoFeatureExtractor.from_pretrained(at.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise ModelError(f"{at.name}: the encoder can't be loaded: {str(error).splitlines()[0]}") from None
        # PE-AV projects to the width of its texts
        config = model.config.text_config if kind in PERCEPTION else model.config
        dim = config.projection_dim if kind == "clap" else config.hidden_size
        return cls(model, extractor, kind, dim, fingerprint=fingerprint(at.folder, (".",)), at=at)


def _open(folder: Path, kind: str):
    from transformers import AutoConfig, AutoModel

    quiet_libraries("transformers")
    options = {"dtype": torch.float32, "local_files_only": True, "use_safetensors": True}
    if kind == "pe_audio_video":  # its video half needs packages and memory, and is not asked
        from transformers import PeAudioModel

        config = AutoConfig.from_pretrained(folder, local_files_only=True).audio_config
        return PeAudioModel.from_pretrained(folder, config=config, key_mapping={r"^audio_model\.": ""}, **options)
    return AutoModel.from_pretrained(folder, **options)


def kind_of(folder: Path) -> str:
    """A model folder's model_type."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf8")).get("model_type", "unknown")
    except (OSError, ValueError):
        raise ModelError(f"{folder} is not a transformers model folder: it has no config.json") from None
