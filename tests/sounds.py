"""Sound files of many kinds, made here."""

from __future__ import annotations

import io
import struct
import tempfile
from pathlib import Path

import av
import numpy as np
import soundfile


def rising(seconds: float = 3.0, rate: int = 16_000, channels: int = 1) -> np.ndarray:
    """(T, C): a sweep that gets louder, so that each moment is known by its pitch and level, with a little noise."""
    t = np.arange(int(seconds * rate)) / rate
    top = min(3000, rate / 4)
    sweep = np.sin(2 * np.pi * (150 * t + (top - 150) * t**2 / (2 * seconds))) * (0.1 + 0.5 * t / seconds)
    noise = 0.003 * np.random.default_rng(0).standard_normal((len(t), channels))
    return (sweep[:, None] * (1 - 0.1 * np.arange(channels)) + noise).astype(np.float32)


def encoded(samples: np.ndarray, rate: int, kind: str = "WAV", subtype: str | None = None, **options) -> bytes:
    """By libsndfile."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=kind, subtype=subtype, **options)
    return buffer.getvalue()


def av_encoded(
    samples: np.ndarray, rate: int, kind: str, codec: str, options: dict[str, str] | None = None, **own: object
) -> bytes:
    """By FFmpeg: (T, C) in mono or stereo. own: attributes of the stream's codec context, such as bit_rate."""
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with (
        tempfile.NamedTemporaryFile() as file,
        av.open(file.name, "w", format=kind, options=options or {}) as container,
    ):
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for name, value in own.items():
            setattr(stream.codec_context, name, value)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        frame.sample_rate = rate
        fitting = av.AudioResampler(format=stream.codec_context.format.name, layout=layout, rate=rate)
        for piece in [*fitting.resample(frame), *fitting.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
        container.close()
        return Path(file.name).read_bytes()


def packets_of(data: bytes) -> list[tuple[int, int]]:
    """Where the packets of the first stream are: place and size in bytes."""
    with av.open(io.BytesIO(data)) as container:
        return [(p.pos, p.size) for p in container.demux(container.streams[0]) if p.size and p.pos is not None]


def with_data_size(wav: bytes, size: int) -> bytes:
    """A WAV whose header says that its sound has `size` bytes."""
    at = wav.index(b"data") + 4
    return wav[:at] + struct.pack("<I", size) + wav[at + 4 :]


MP3_RATES = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s of MPEG-1 layer 3


def mp3_without_counts(mp3: bytes) -> bytes:
    """An MP3 of 44.1 kHz without its first packet, in which encoders write how many follow."""
    head = int.from_bytes(mp3[:4], "big")
    return mp3[144_000 * MP3_RATES[head >> 12 & 15] // 44_100 + (head >> 9 & 1) :]


def likeness(a: np.ndarray, b: np.ndarray, lag: int = 0) -> float:
    """The correlation of two mono sounds over what both have, at the best of the shifts up to `lag` samples."""
    found = []
    for shift in range(-lag, lag + 1):
        c, d = a[max(0, shift) :], b[max(0, -shift) :]
        count = min(len(c), len(d))
        found.append(float(np.corrcoef(c[:count], d[:count])[0, 1]))
    return max(found)
