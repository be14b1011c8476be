"""The training-free image bridge: a captioner's words, spoken by a synthesiser, as the units of the decoder."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mmx.bridges.audio_encoders import kind_of
from mmx.bridges.base import WordsBridge
from mmx.compat import quiet_libraries  # first: torchaudio must be mended before transformers is imported
from mmx.decoders.base import freeze
from mmx.errors import InputError, ModelError
from mmx.media.audio import Waveform
from mmx.models.store import Located
from mmx.nets.writer import Sampling

BEAM = 4  # where the likeliest caption is asked for
MAX_WORDS = 30  # tokens of a caption


class CaptionBridge(WordsBridge):
    """Picture → caption → speech → units."""

    def __init__(self, captioner: Any, processor: Any, speaker: Any, tokenizer: Any, decoder: Any) -> None:
        self.captioner, self.processor = freeze(captioner), processor
        self.speaker, self.tokenizer, self.decoder = freeze(speaker), tokenizer, decoder

    def prepare(self, media: Image.Image) -> Tensor:
        """An RGB picture of any size → the captioner's pixels (1, 3, S, S)."""
        return self.processor(images=media, return_tensors="pt").pixel_values

    @property
    def side(self) -> int:
        """Pixels of a side of the pictures that the captioner looks at."""
        return int(self.processor.image_processor.size["height"])

    def caption(self, features: Tensor, sampling: Sampling, generator: torch.Generator) -> tuple[str, float]:
        """What the captioner says of a picture, and how sure it is of a token: the geometric mean of their
        probabilities."""
        draws = sampling.temperature > 0 and sampling.candidates == 1
        how = {"temperature": sampling.temperature, "top_p": sampling.top_p} if draws else {}
        with _drawn_from(generator):
            said = self.captioner.generate(
                pixel_values=features,
                max_new_tokens=MAX_WORDS,
                num_beams=1 if draws else max(sampling.beam, BEAM if sampling.candidates > 1 else 1),
                do_sample=draws,
                return_dict_in_generate=True,
                output_scores=True,
                **how,
            )
        text = self.processor.decode(said.sequences[0], skip_special_tokens=True).strip()
        scores = self.captioner.compute_transition_scores(
            said.sequences, said.scores, getattr(said, "beam_indices", None), normalize_logits=True
        )[0]
        finite = scores[torch.isfinite(scores)]
        return text, float(finite.mean().exp()) if len(finite) else 0.0

    def speak(self, text: str, generator: torch.Generator) -> Waveform:
        """A text → speech. Raises InputError where there is nothing to say."""
        tokens = self.tokenizer(text, return_tensors="pt")
        if not text or not tokens.input_ids.numel():
            raise InputError("the captioner had nothing to say of this picture")
        with _drawn_from(generator):
            samples = self.speaker(**tokens).waveform[0]
        return Waveform(samples.float().cpu().numpy(), int(self.speaker.config.sampling_rate))

    def write(self, text: str, generator: torch.Generator) -> Tensor:
        """A text → the decoder's units (L,) of it."""
        return self.decoder.targets([self.speak(text, generator)])[0]

    @classmethod
    def load(cls, at: Located, decoder: Any) -> CaptionBridge:
        """Read a captioner's folder and a VITS speaker's beside it. Raises ModelError."""
        from transformers import AutoModelForImageTextToText, AutoProcessor, AutoTokenizer, VitsModel

        if at.companion is None:
            raise ModelError(
                f"{at.name}: a captioner writes, and something must read it out",
                hint="give both: --encoder CAPTIONER+SPEAKER, a BLIP and a VITS",
            )
        if kind_of(at.companion) != "vits":
            raise ModelError(f"{at.companion.name} is a {kind_of(at.companion)}", hint="the speaker is a VITS model")
        quiet_libraries("transformers")
        known: dict[str, Any] = {"local_files_only": True}
        weights = known | {"dtype": torch.float32, "use_safetensors": True}
        try:
            return cls(
                AutoModelForImageTextToText.from_pretrained(at.folder, **weights),
                AutoProcessor.from_pretrained(at.folder, **known),
                VitsModel.from_pretrained(at.companion, **weights),
                AutoTokenizer.from_pretrained(at.companion, **known),
                decoder,
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"{at.name}: it can't be loaded: {str(error).splitlines()[0]}") from None


class _drawn_from:
    """Inside, what draws from torch's global generator draws from a function of ours; outside it is as it was."""

    def __init__(self, generator: torch.Generator) -> None:
        self.seed = int(torch.randint(1 << 62, (), generator=generator))
        self.fork = torch.random.fork_rng(devices=[])

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *reason: object) -> None:
        self.fork.__exit__(*reason)
