"""Files of many kinds, made here, beside what FFmpeg decodes of them."""

from __future__ import annotations

import io
from collections.abc import Callable

import av
import numpy as np
import pytest
from PIL import Image

from mmx.media.audio import read_audio, resample
from mmx.media.image import read_image
from tests.sounds import av_encoded, encoded, likeness, rising

# libsndfile: container, coding, rate, channels
WRITTEN = [
    *[("WAV", coding, 16_000, 1) for coding in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")],
    *[("WAV", coding, 8_000, 1) for coding in ("ULAW", "ALAW", "IMA_ADPCM", "MS_ADPCM", "GSM610")],
    *[("WAV", "PCM_16", rate, 2) for rate in (11_025, 22_050, 32_000, 44_100, 48_000, 96_000)],
    *[("WAV", "PCM_16", 48_000, channels) for channels in (3, 4, 6, 8)],
    *[(kind, "PCM_16", 44_100, 2) for kind in ("WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "VOC")],
    *[("AIFF", coding, 22_050, 1) for coding in ("PCM_S8", "PCM_24", "FLOAT", "ULAW")],
    *[("AU", coding, 8_000, 1) for coding in ("ULAW", "FLOAT")],
    *[("CAF", coding, 44_100, 2) for coding in ("PCM_24", "ALAC_16", "ALAC_24")],
    *[("FLAC", coding, 48_000, 1) for coding in ("PCM_S8", "PCM_24")],
    *[("OGG", "VORBIS", rate, 2) for rate in (16_000, 44_100)],
    *[("OGG", "OPUS", 48_000, channels) for channels in (1, 2)],
    *[("MP3", "MPEG_LAYER_III", rate, 2) for rate in (16_000, 22_050, 44_100, 48_000)],
]
# FFmpeg: container, codec, rate, channels
MUXED = [
    *[("mp4", "aac", rate, channels) for rate, channels in ((16_000, 1), (44_100, 2), (48_000, 2))],
    *[("ipod", "alac", 44_100, 2), ("mov", "pcm_s16le", 48_000, 2), ("mp4", "ac3", 48_000, 2)],
    *[("matroska", codec, 48_000, 2) for codec in ("aac", "libopus", "libmp3lame", "pcm_s24le")],
    *[("webm", "libopus", 48_000, 1), ("adts", "aac", 44_100, 2)],
    *[("mp2", "mp2", 44_100, 2), ("ac3", "ac3", 48_000, 2), ("wv", "wavpack", 44_100, 2), ("tta", "tta", 44_100, 2)],
    *[("avi", "libmp3lame", 44_100, 2), ("avi", "pcm_s16le", 22_050, 1), ("mpegts", "mp2", 48_000, 2)],
    *[("flv", "libmp3lame", 44_100, 2), ("caf", "pcm_s16be", 16_000, 1), ("asf", "libmp3lame", 44_100, 2)],
]
SOUNDS: dict[str, Callable[[], tuple[bytes, int]]] = {
    **{
        "-".join(map(str, own)): lambda own=own: (encoded(_samples(*own[2:]), own[2], *own[:2]), own[2])
        for own in WRITTEN
    },
    **{
        "-".join(map(str, own)): lambda own=own: (av_encoded(_samples(*own[2:]), own[2], *own[:2]), own[2])
        for own in MUXED
    },
}


def _samples(rate: int, channels: int) -> np.ndarray:
    return rising(2.0, rate, channels)


def by_ffmpeg(data: bytes) -> tuple[np.ndarray, int]:
    """Everything that FFmpeg decodes, in mono, and its rate."""
    with av.open(io.BytesIO(data)) as container:
        fitting = av.AudioResampler(format="flt")  # not planar: PyAV reads past the end of eight planes
        frames = [piece for frame in container.decode(audio=0) for piece in fitting.resample(frame)]
        samples = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        return samples.reshape(-1, frames[0].layout.nb_channels).mean(1), frames[0].sample_rate


@pytest.mark.parametrize("name", list(SOUNDS))
def test_a_sound_is_what_ffmpeg_decodes(name: str) -> None:
    data, _ = SOUNDS[name]()
    expected, rate = by_ffmpeg(data)
    read = read_audio(data, sample_rate=None, name=name, strict=True)
    assert read.sample_rate == rate
    # FFmpeg leaves the last packet out of ALAC in CAF
    assert abs(len(read.samples) - len(expected)) <= 0.03 * rate or len(read.samples) == 2 * rate
    assert likeness(read.samples, expected) > 0.999
    assert read.notes == ()
    again = read_audio(data, sample_rate=16_000, window=0.5)
    assert abs(again.seconds - 0.5) < 0.001 and again.rms_db > read.rms_db + 1  # the loud end


def test_narrow_opus_is_nearer_to_what_was_encoded_than_ffmpeg_is() -> None:
    samples = rising(2.0, 16_000)
    data = encoded(samples, 16_000, "OGG", "OPUS")
    expected, rate = by_ffmpeg(data)
    read = read_audio(data, sample_rate=None)
    assert rate == 48_000 and read.seconds == len(expected) / rate == 2.0
    assert likeness(read.samples, samples[:, 0]) > 0.999 > likeness(expected, resample(samples[:, 0], 16_000, rate))


PICTURES = {
    "jpeg": ("JPEG", {"quality": 95}),
    "progressive jpeg": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "webp": ("WEBP", {"lossless": True}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "packed tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "gif": ("GIF", {}),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", list(PICTURES))
def test_a_picture_is_what_ffmpeg_decodes(name: str, mode: str) -> None:
    ramp = np.linspace(0, 255, 48, dtype=np.uint8)
    pixels = np.stack([ramp[None].repeat(32, 0), ramp[None, ::-1].repeat(32, 0), np.full((32, 48), 90, np.uint8)], 2)
    kind, options = PICTURES[name]
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=kind, **options)
    with av.open(io.BytesIO(buffer.getvalue())) as container:
        expected = next(container.decode(video=0)).to_image().convert("RGB")
    read = read_image(io.BytesIO(buffer.getvalue()), name=name)
    assert read.size == expected.size
    assert likeness(np.asarray(read, float).ravel(), np.asarray(expected, float).ravel()) > 0.999
