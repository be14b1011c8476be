"""What a space is: encoders of several modalities whose unit vectors can be compared with each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mmx.errors import ModelError, NonFiniteError
from mmx.media.formats import HEARD_WINDOW, MODALITIES, SAMPLE_RATE

if TYPE_CHECKING:
    from mmx.spaces.continued import Continued

PHOTO_PROMPTS = ("a photo of a {}", "a photo of {}", "a picture of a {}")
SOUND_PROMPTS = ("the sound of {}", "this is the sound of {}", "{}")

# media of one modality → their embeddings (B, D), of any norm, on any device
Encoder = Callable[[Sequence[Any]], Tensor]


@dataclass(frozen=True)
class Threshold:
    """From which similarity on something is there; how often that was said of what was there and of what was not."""

    at: float
    there: float
    absent: float


@dataclass(frozen=True)
class Calibration:
    """What of a space can only be measured. means (D,): by modality; tags: by modality of what is tagged, of what
    speaks for any label (`mmx.spaces.tags.evidence`); places: by modality of what is looked for, of the warmest
    cell's."""

    fingerprint: str
    means: Mapping[str, Sequence[float]] = field(default_factory=dict)
    tags: Mapping[str, Threshold] = field(default_factory=dict)
    places: Mapping[str, Threshold] = field(default_factory=dict)


@dataclass(frozen=True)
class Space:
    """A joint embedding (CLIP, Radford et al. 2021; CLAP; ImageBind, Girdhar et al. 2023).

    name, fingerprint: which it is; the fingerprint is a sha256 over all weights that its vectors depend on.
    encoders: by modality. scale: by modality, the inverse temperature at which its vectors are compared with those of
    texts; it never goes into the vectors. prompts: by modality, sentences that a label is put into. labels: what is
    told apart unless the user says what. rate, window: Hz at which sounds are given, and seconds that are heard. cells:
    an RGB picture → unit vectors (H, W, D) of its parts; None where it sees none. pixels: (B, 3, H, W) in [0, 1] of any
    size → embeddings (B, D) of any norm, with gradients; None where it sees no pictures. continued: reads texts that
    begin alike without reading the beginning again; None where it can't. calibration: what was measured of it, if
    anything was. extends: fingerprints of the spaces that it is with an encoder more: it searches what they hold.
    are_far: whether texts are far from everything that it was trained on; None where nobody measured that. unsaid:
    texts → orthonormal directions (H, D), along which is read what none of them speaks about; None where nobody knows.
    files: the files and folders that it was made of, there or not. means (D,): of modalities, as far as models know
    their own.
    """

    name: str
    fingerprint: str
    dim: int
    encoders: Mapping[str, Encoder]
    scale: Mapping[str, float]
    prompts: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...] = ()
    rate: int = SAMPLE_RATE
    window: float = HEARD_WINDOW
    cells: Callable[[Image.Image], Tensor] | None = None
    pixels: Callable[[Tensor], Tensor] | None = None
    continued: Continued | None = None
    calibration: Calibration | None = None
    extends: tuple[str, ...] = ()
    are_far: Callable[[Sequence[str]], list[bool]] | None = None
    unsaid: Callable[[Sequence[str]], Tensor] | None = None
    models: Sequence[torch.nn.Module] = field(default=(), repr=False)
    files: tuple[Path, ...] = ()
    means: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it has encoders for."""
        return tuple(modality for modality in MODALITIES if modality in self.encoders)

    def require(self, modality: str) -> None:
        """Raise ModelError where it has no encoder for this."""
        if modality not in self.encoders:
            raise ModelError(
                f"the space {self.name} has no {modality}s: it has {' and '.join(f'{m}s' for m in self.modalities)}",
                hint="give another one with --space",
            )

    @torch.inference_mode()
    def encode(self, media: Sequence[Any], modality: str) -> Tensor:
        """Media of one modality → unit vectors (B, D), float32, on the CPU.

        RGB pictures of any size, mono Waveforms at `rate`, or texts. Raises ModelError for a modality that it lacks,
        NonFiniteError where a model gives no numbers.
        """
        self.require(modality)
        if not media:
            return torch.zeros(0, self.dim)
        vectors = F.normalize(self.encoders[modality](media).float().cpu(), dim=-1)
        if not torch.isfinite(vectors).all():
            raise NonFiniteError(f"the space {self.name} gives no numbers for this {modality}")
        return vectors

    def see(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) in [0, 1] → unit vectors (B, D), float32, where the space computes.

        As `encode` of such pictures, up to the rounding to 8 bits, and with gradients: what is guided by the space is
        guided through this. Raises ModelError where it has none.
        """
        self.require("image")
        if self.pixels is None:
            raise ModelError(
                f"the space {self.name} gives no gradients", hint="an image decoder's, CLIP's or SigLIP's does"
            )
        return F.normalize(self.pixels(pixels).float(), dim=-1)

    def encode_labels(self, labels: Sequence[str], modality: str) -> Tensor:
        """Labels → unit vectors (K, D) of the texts that stand for them beside media of a modality: the mean over
        prompts (CLIP's prompt ensemble)."""
        prompts = self.prompts[modality]
        texts = [prompt.format(label) for label in labels for prompt in prompts]
        return F.normalize(self.encode(texts, "text").unflatten(0, (len(labels), len(prompts))).mean(1), dim=-1)
