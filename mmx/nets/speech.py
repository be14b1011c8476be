"""Speech: log-mel, discrete units and back, and a vocoder.

Shapes follow transformers' SpeechT5HifiGan, which fits in the same place.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmx.media.formats import SAMPLE_RATE
from mmx.media.spectrum import mel_filters as mel_filters_of

HOP = 256  # samples: 16 ms, 62.5 frames a second
FFT = 1024  # samples, and the length of the window
MELS = 80
LOW, HIGH = 80.0, 7600.0  # Hz
FLOOR = 1e-10  # magnitude below the logarithm
STRIDE = 2  # frames a unit: 31.25 units a second


@lru_cache(maxsize=1)
@torch.inference_mode(False)  # whoever asks first: they serve training, too
def _tables() -> tuple[Tensor, Tensor]:
    filters = mel_filters_of(FFT // 2 + 1, MELS, SAMPLE_RATE, low=LOW, top=HIGH)
    return torch.from_numpy(filters).float(), torch.hann_window(FFT)


def mel_filters() -> Tensor:
    """The mel filter bank (513, 80): magnitudes @ filters are mels."""
    return _tables()[0]


def _spectrum(samples: Tensor) -> Tensor:
    """Waveforms (B, T) → their short-time spectra (B, 513, T // 256 + 1), complex."""
    return torch.stft(samples, FFT, HOP, FFT, _tables()[1].to(samples.device), center=True, return_complex=True)


def _inverted(spectrum: Tensor) -> Tensor:
    """The inverse: (B, 513, F) → (B, 256 (F - 1))."""
    return torch.istft(spectrum, FFT, HOP, FFT, _tables()[1].to(spectrum.device), center=True)


def speech_mel(samples: Tensor) -> Tensor:
    """Waveforms (B, T) at 16 kHz → log10-mel magnitudes (B, T // 256 + 1, 80), as SpeechT5's feature extractor makes
    them.
    """
    filters = mel_filters().to(samples.device)
    return torch.log10((_spectrum(samples).abs().transpose(1, 2) @ filters).clamp(min=FLOOR))


class ConvNeXt(nn.Module):
    """A one-dimensional ConvNeXt block (Liu et al. 2022), as in Vocos. (B, C, L) → the same."""

    def __init__(self, width: int, hidden: int, scale: float = 0.2) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.grow, self.shrink = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.mix(x).transpose(1, 2))
        return x + (self.scale * self.shrink(F.gelu(self.grow(y)))).transpose(1, 2)


class Codebook(nn.Module):
    """Vector quantisation with a codebook that follows its members (van den Oord et al. 2017, appendix A.1).

    `rows` (K, D) are the codes. In training every code moves to the running mean of the vectors that chose it; one
    that nobody chooses is put where a vector is.
    """

    def __init__(self, count: int, dim: int, decay: float = 0.98) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("rows", torch.randn(count, dim))
        self.register_buffer("sums", self.rows.clone())
        self.register_buffer("uses", torch.ones(count))

    def nearest(self, x: Tensor) -> Tensor:
        """Vectors (..., D) → the indices (...) of their nearest codes."""
        flat = x.flatten(0, -2).float()
        return torch.cdist(flat, self.rows.float()).argmin(1).view(x.shape[:-1])

    @torch.no_grad()
    def follow(self, x: Tensor, chosen: Tensor, generator: torch.Generator) -> None:
        """Move the codes. x (N, D) and their choices (N,); `generator` draws the places of unused codes."""
        hot = F.one_hot(chosen, len(self.rows)).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):  # the codes stay in float32
            self.uses.lerp_(hot.sum(0), 1 - self.decay)
            self.sums.lerp_(hot.T @ x, 1 - self.decay)
        self.rows.copy_(self.sums / self.uses.clamp(min=1e-3)[:, None])
        idle = self.uses < 0.05
        if idle.any():
            fresh = x[torch.randint(len(x), (int(idle.sum()),), generator=generator)]
            self.rows[idle], self.sums[idle], self.uses[idle] = fresh, fresh, 1.0


class UnitCodec(nn.Module):
    """Log-mel ↔ discrete units.

    The units carry what is said; who says it is a voice given to the decoder beside them.
    """

    def __init__(
        self, units: int = 256, code: int = 64, width: int = 192, hidden: int = 512, depth: int = 3, voices: int = 4
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((MELS,), -2.0))
        self.register_buffer("std", torch.ones(MELS))
        self.into = nn.Conv1d(MELS, width, 5, padding=2)
        self.down = nn.Conv1d(width, width, 2 * STRIDE, STRIDE, STRIDE // 2)
        self.encoder = nn.Sequential(*(ConvNeXt(width, hidden) for _ in range(depth)))
        self.code = nn.Linear(width, code)
        self.book = Codebook(units, code)
        self.open = nn.Conv1d(code, width, 3, padding=1)
        self.voices = nn.Embedding(voices, width)
        self.decoder = nn.Sequential(*(ConvNeXt(width, hidden) for _ in range(depth)))
        self.up = nn.ConvTranspose1d(width, width, 2 * STRIDE, STRIDE, STRIDE // 2)
        self.finish = nn.Sequential(*(ConvNeXt(width, hidden) for _ in range(depth)))
        self.out = nn.Conv1d(width, MELS, 5, padding=2)

    def vectors(self, mel: Tensor) -> Tensor:
        """Log-mel (B, F, 80) → vectors before quantisation (B, F // 2, D)."""
        x = self.into(((mel - self.mean) / self.std).transpose(1, 2))
        return self.code(self.encoder(F.gelu(self.down(x))).transpose(1, 2))

    def encode(self, mel: Tensor) -> Tensor:
        """Log-mel (B, F, 80) → units (B, F // 2)."""
        return self.book.nearest(self.vectors(mel))

    def render(self, codes: Tensor, voice: Tensor) -> Tensor:
        """Code vectors (B, L, D) and voices (B,) → log-mel (B, 2 L, 80)."""
        x = self.open(codes.transpose(1, 2)) + self.voices(voice)[:, :, None]
        x = self.finish(F.gelu(self.up(self.decoder(x))))
        return self.out(x).transpose(1, 2) * self.std + self.mean

    def decode(self, units: Tensor, voice: Tensor) -> Tensor:
        """Units (B, L) and voices (B,) → log-mel (B, 2 L, 80)."""
        return self.render(self.book.rows[units], voice)


def with_mel(samples: Tensor, mel: Tensor) -> Tensor:
    """Waveforms (B, 256 F) brought nearer to a log10-mel (B, F, 80): a gain for each bin of their spectra, the mean of
    the gains that the mel filters over it ask for. Phases and what lies between the filters stay, so that it is less
    rigid than the projection on magnitudes of Griffin and Lim (1984).
    """
    filters = mel_filters().to(samples.device)
    weights = filters.sum(1)
    spectrum = _spectrum(samples)
    # the spectrum has one frame more
    wanted = torch.cat((mel, mel[:, -1:]), 1)
    gains = (wanted - (spectrum.abs().transpose(1, 2) @ filters).clamp(min=FLOOR).log10()).clamp(-3, 3)
    gains = (gains @ filters.T) / weights.clamp(min=1e-3)  # none outside of all filters
    return _inverted(spectrum * (10**gains).transpose(1, 2))


class Vocos(nn.Module):
    """A vocoder that predicts a spectrogram's magnitudes and phases, and inverts it (Siuzdak 2023).

    Takes the place of transformers' SpeechT5HifiGan: log10-mel (B, F, 80) → waveforms (B, 256 F). Spectra that are
    predicted frame by frame don't agree where frames overlap, and what is heard is none of them: in `rounds` the
    waveform is brought back to the mel.
    """

    def __init__(self, width: int = 192, hidden: int = 576, depth: int = 6, rounds: int = 0) -> None:
        super().__init__()
        self.rounds = rounds
        self.into = nn.Conv1d(MELS, width, 7, padding=3)
        self.first = nn.LayerNorm(width)
        self.blocks = nn.Sequential(*(ConvNeXt(width, hidden, 1 / depth) for _ in range(depth)))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, FFT + 2)

    def forward(self, spectrogram: Tensor) -> Tensor:
        x = self.first(self.into(spectrogram.transpose(1, 2)).transpose(1, 2))
        x = self.last(self.blocks(x.transpose(1, 2)).transpose(1, 2))
        log_magnitude, phase = self.head(x).float().chunk(2, dim=-1)
        magnitude = log_magnitude.clamp(max=6.0).exp()
        spectrum = torch.complex(magnitude * phase.cos(), magnitude * phase.sin()).transpose(1, 2)
        samples = _inverted(F.pad(spectrum, (0, 1)))  # F frames end F - 1 hops after the first; one more: whole hops
        for _ in range(self.rounds):
            samples = with_mel(samples, spectrogram)
        return samples


def collapse(units: Tensor) -> tuple[Tensor, Tensor]:
    """Units (L,) → the units without repeats (M,) and how often each was repeated (M,)."""
    return torch.unique_consecutive(units, return_counts=True)


def expand(units: Tensor, counts: Tensor) -> Tensor:
    """The inverse of `collapse`."""
    return units.repeat_interleave(counts)
