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

MODEL = {"name": "a", "sha256": "00"}
RECORD = {"schema": SCHEMA, "version": "0.0", "command": "sound2img", "layout": "single", "indices": [0], "heard": []}
RECORD |= {"inputs": [{"name": "größe.wav", "sha256": "00", "role": "source", "weight": 1.0}], "settings": {"seed": 7}}
RECORD |= {"libraries": {}, "bridge": MODEL, "decoder": MODEL}


def test_png_round_trip() -> None:
    data = png_bytes(Image.new("RGB", (4, 4)), text_chunks(RECORD))
    assert read_record(data, "x.png") == RECORD
    assert "Synthetic" in Image.open(io.BytesIO(data)).info["Comment"]


def test_gif_round_trip() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="GIF", comment=dumps(RECORD | {"long": "x" * 2000}).encode())
    assert read_record(buffer.getvalue(), "x.gif")["settings"] == {"seed": 7}


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


@pytest.mark.parametrize("field", ["inputs", "settings", "libraries", "decoder", "heard"])
@pytest.mark.parametrize("wrong", [None, 7, [3], {"name": 3}])
def test_records_of_another_form_are_refused_by_the_field(field: str, wrong: object) -> None:
    record = {name: value for name, value in RECORD.items() if name != field} | ({field: wrong} if wrong else {})
    if type(wrong) is type(RECORD[field]) and field in ("settings", "libraries", "heard"):
        return  # of the right form
    with pytest.raises(InputError, match="damaged"):
        read_record(
            png_bytes(Image.new("RGB", (4, 4)), text_chunks(RECORD | {"version": "1"}) | {"mmx": dumps(record)}), "x"
        )
    with pytest.raises(InputError, match="schema"):
        read_record(png_bytes(Image.new("RGB", (4, 4)), {"mmx": "[]"}), "x")
