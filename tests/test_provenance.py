"""What an artifact says of itself survives its format."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from PIL import Image

from mmx.errors import InputError
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.image import png_bytes
from mmx.media.provenance import SCHEMA, dumps, embed_wav, read_record, text_chunks
from tests.conftest import tone

RECORD = {"schema": SCHEMA, "version": "0.0", "inputs": [{"name": "größe.wav", "sha256": "00"}], "seed": 7}


def test_png_round_trip() -> None:
    data = png_bytes(Image.new("RGB", (4, 4)), text_chunks(RECORD))
    assert read_record(data, "x.png") == RECORD
    assert "Synthetic" in Image.open(io.BytesIO(data)).info["Comment"]


def test_gif_round_trip() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="GIF", comment=dumps(RECORD | {"long": "x" * 2000}).encode())
    assert read_record(buffer.getvalue(), "x.gif")["seed"] == 7


def test_wav_round_trip_leaves_the_sound_alone() -> None:
    plain = wav_bytes(Waveform(tone(0.2)[:-1], 16_000))
    data = embed_wav(plain, RECORD)
    assert read_record(data, "x.wav") == RECORD
    np.testing.assert_array_equal(soundfile.read(io.BytesIO(data))[0], soundfile.read(io.BytesIO(plain))[0])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        png_bytes(Image.new("RGB", (4, 4))),
        wav_bytes(Waveform(tone(0.1), 16_000)),
        png_bytes(Image.new("RGB", (4, 4)), {"mmx": "{broken"}),
        png_bytes(Image.new("RGB", (4, 4)), {"mmx": '{"schema":"other/9"}'}),
    ],
)
def test_files_without_a_record_are_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        read_record(data, "x")
