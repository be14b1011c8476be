"""A speaker encoder (generalised end-to-end loss, Wan et al. 2018), trained by others on thousands of voices
(Resemblyzer, Apache-2.0): what it hears in voices teaches bridges from them, and tells how alike two voices are.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.bridges.frontends import OfSounds
from mmx.decoders.base import freeze
from mmx.errors import ModelError
from mmx.media.audio import Waveform
from mmx.media.formats import SAMPLE_RATE
from mmx.training.teachers.packaged import file_of

PACKAGE, FILE = "resemblyzer", "pretrained.pt"
MELS, WINDOW, HOP = 40, 400, 160  # bands, samples: power of 25 ms every 10 ms, without a logarithm
WIDTH, LAYERS = 256, 3
FRAMES, STEP = 160, 77  # of a stretch: 1.6 s, 1.3 of them a second
COVERED = 0.75  # the least part of the last stretch that is sound
QUIET = 10 ** (-30 / 20)  # root mean square up to which quiet voices are brought


class SpeakerEncoder(nn.Module):
    """An LSTM over stretches of a voice. Frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(MELS, WIDTH, LAYERS, batch_first=True)
        self.linear = nn.Linear(WIDTH, WIDTH)

    def forward(self, stretches: Tensor) -> Tensor:
        """Mel powers (B, F, 40) → unit vectors (B, 256), none of whose coordinates is negative."""
        _, (hidden, _) = self.lstm(stretches)
        return F.normalize(F.relu(self.linear(hidden[-1])), dim=1)

    @torch.inference_mode()
    def embed(self, voice: Waveform) -> Tensor:
        """A voice at 16 kHz → its unit vector (256,): of the mean over its stretches."""
        return F.normalize(self(stretches(voice.samples)).mean(0), dim=0)


def stretches(samples: np.ndarray) -> Tensor:
    """Samples (T,) at 16 kHz → mel powers (B, 160, 40) of stretches that overlap by half."""
    import librosa

    rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    louder = samples * max(1.0, QUIET / max(rms, 1e-9))
    starts = range(0, max(1, len(samples) // HOP + 1 - FRAMES + STEP + 1), STEP)
    last = starts[-1] * HOP
    if len(starts) > 1 and (len(samples) - last) / (FRAMES * HOP) < COVERED:
        starts = starts[:-1]
    padded = np.pad(louder, (0, max(0, (starts[-1] + FRAMES) * HOP - len(samples))))
    mel = librosa.feature.melspectrogram(
        y=padded.astype(np.float32), sr=SAMPLE_RATE, n_fft=WINDOW, hop_length=HOP, n_mels=MELS
    )
    frames = torch.from_numpy(mel.T.astype(np.float32))
    return torch.stack([frames[start : start + FRAMES] for start in starts])


def is_installed() -> bool:
    """Whether the package with the weights is there."""
    return file_of(PACKAGE, FILE) is not None


@lru_cache(maxsize=1)
def load_speaker_encoder() -> SpeakerEncoder:
    """The frozen network with the weights of its package. Raises ModelError where that is not installed."""
    path = file_of(PACKAGE, FILE)
    if path is None:
        raise ModelError("the speaker encoder's weights are not installed", hint="pip install --no-deps Resemblyzer")
    weights = torch.load(path, weights_only=True, map_location="cpu")["model_state"]
    net = SpeakerEncoder()
    net.load_state_dict({name: value for name, value in weights.items() if name in net.state_dict()})
    return freeze(net)


class VoicePrints(OfSounds):
    """What the cache holds of voices: what the speaker encoder makes of each (1, 256) float16."""

    name = "ge2e"
    empty = torch.zeros(0, WIDTH, dtype=torch.float16)

    def __init__(self) -> None:
        super().__init__(voice=False)  # as they were recorded

    def row(self, wave: Waveform) -> Tensor:
        return load_speaker_encoder().embed(wave)[None].half()
