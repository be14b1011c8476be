"""Pictures of media: waveform and spectrogram of a sound, the channels of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from mmx.media.audio import Waveform
from mmx.media.spectrum import mel_frequencies, stft

SCALES = ("mel", "log", "linear")
LETTERS = " .:-=+*#%@"  # from black to white
RANGE = 80.0  # dB below the loudest point that are still drawn
# dark to light, evenly spaced to the eye; between them colours are interpolated
INKS = (
    (0, 0, 4),
    (40, 11, 84),
    (101, 21, 110),
    (159, 42, 99),
    (212, 72, 66),
    (245, 125, 21),
    (250, 193, 39),
    (252, 255, 164),
)


@dataclass(frozen=True)
class View:
    """How a sound is drawn. fft and hop in samples; window is one of WINDOWS, scale one of SCALES."""

    window: str = "hann"
    scale: str = "mel"
    fft: int = 1024
    hop: int = 256
    bands: int = 160
    width: int = 960


@lru_cache(maxsize=1)
def palette() -> np.ndarray:
    """Colours from dark to light (256, 3), uint8."""
    at = np.linspace(0, len(INKS) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(INKS)), [ink[k] for ink in INKS]) for k in range(3)], 1).astype(
        np.uint8
    )


def power_db(wave: Waveform, view: View) -> np.ndarray:
    """The spectrogram in dB relative to its loudest point: (fft / 2 + 1, frames), lowest frequency first."""
    samples = wave.samples if len(wave.samples) >= view.fft else np.pad(wave.samples, (0, view.fft - len(wave.samples)))
    spectrum = np.abs(stft(samples, fft=view.fft, hop=view.hop, name=view.window)) ** 2
    return 10 * np.log10(np.maximum(spectrum, 1e-12) / max(float(spectrum.max()), 1e-12))


def banded(decibels: np.ndarray, rate: int, view: View) -> np.ndarray:
    """Rows (frequencies) resampled to `view.bands` on the scale that was asked for."""
    if view.scale == "linear":
        centres = np.linspace(0, rate / 2, view.bands)
    elif view.scale == "log":
        centres = np.geomspace(40.0, rate / 2, view.bands)
    else:
        centres = mel_frequencies(view.bands, rate / 2)
    rows = centres / (rate / 2) * (decibels.shape[0] - 1)
    low = np.clip(rows.astype(int), 0, decibels.shape[0] - 2)
    part = (rows - low)[:, None]
    return (1 - part) * decibels[low] + part * decibels[low + 1]


def draw_sound(wave: Waveform, view: View = View()) -> Image.Image:
    """A waveform above its spectrogram, time from left to right, frequency upward, louder is lighter."""
    bands = banded(power_db(wave, view), wave.sample_rate, view)
    shade = np.clip((bands + RANGE) / RANGE * 255, 0, 255).astype(np.uint8)[::-1]
    spectrogram = Image.fromarray(palette()[shade]).resize((view.width, 2 * view.bands), Image.Resampling.BILINEAR)
    top = 120
    sheet = Image.new("RGB", (view.width, top + spectrogram.height + 18), "white")
    pen = ImageDraw.Draw(sheet)
    columns = np.array_split(wave.samples, view.width) if len(wave.samples) >= view.width else wave.samples[:, None]
    for number, part in enumerate(columns):
        x = number * view.width // len(columns)
        low, high = float(np.min(part)), float(np.max(part))
        pen.line((x, top / 2 * (1 - high), x, top / 2 * (1 - low) + 1), fill=(60, 60, 120))
    sheet.paste(spectrogram, (0, top))
    text = f"{wave.seconds:.2f} s   {wave.sample_rate} Hz   {view.scale} scale to {wave.sample_rate // 2} Hz   "
    text += f"{view.window} window, {view.fft} samples"
    pen.text((4, top + spectrogram.height + 3), text, fill="black")
    return sheet


def draw_picture(image: Image.Image) -> Image.Image:
    """A picture beside its red, green and blue channels."""
    from mmx.media.image import grid

    side = 320
    scale = side / max(image.size)
    small = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.LANCZOS
    )
    parts = [small]
    for number, channel in enumerate(small.split()):
        empty = Image.new("L", small.size)
        parts.append(Image.merge("RGB", [channel if k == number else empty for k in range(3)]))
    return grid(parts, 4)


def in_letters(image: Image.Image, columns: int) -> str:
    """A picture as plain letters, `columns` of them wide: for whoever wants no colours, and for files and pipes."""
    rows = max(1, round(image.height * columns / image.width / 2))  # a letter is twice as high as it is wide
    grey = np.asarray(image.convert("L").resize((columns, rows), Image.Resampling.LANCZOS))
    shades = grey.astype(int) * len(LETTERS) // 256
    return "\n".join("".join(LETTERS[shade] for shade in row).rstrip() for row in shades)
