"""Videos → pairs: which moments are kept, which are dropped, and that they fit together."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mmx.errors import InputError
from mmx.media.video import moments
from tests.conftest import RATE, tone

SCENES = (
    ((200, 40, 40), 300.0),
    ((40, 40, 200), 3000.0),
    ((40, 200, 40), 0.0),
    (None, 900.0),
)  # colour, Hz; silent; flat


def video(path: Path, fps: int = 8, seconds: float = 4.0, *, sounds: bool = True) -> Path:
    """Four scenes of 4 s: two fine ones, one silent, one flat."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=fps)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="mono") if sounds else None
        for colour, hertz in SCENES:
            for _ in range(int(fps * seconds)):
                noise = rng.integers(-30, 30, (64, 64, 3)) if colour else np.zeros((64, 64, 3))
                pixels = np.clip(np.array(colour or (90, 90, 90)) + noise, 0, 255).astype(np.uint8)
                container.mux(picture.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            if sound is None:
                continue
            samples = (tone(seconds, hertz) * 32000).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            frame.sample_rate = RATE
            container.mux(sound.encode(frame))
        container.mux(picture.encode())
        if sound is not None:
            container.mux(sound.encode())
    return path


def test_a_moments_frame_and_sound_are_of_its_time(tmp_path: Path) -> None:
    found = list(moments(video(tmp_path / "a.mkv"), every=2.0, window=1.0, sample_rate=RATE))
    assert [round(m.seconds) for m in found] == [1, 3, 5, 7, 9, 11, 13, 15]
    assert np.asarray(found[0].frame).mean((0, 1))[0] > 150 and np.asarray(found[2].frame).mean((0, 1))[2] > 150
    for moment, hertz in ((found[0], 300), (found[3], 3000)):
        spectrum = np.abs(np.fft.rfft(moment.sound.samples))
        assert len(moment.sound.samples) == RATE and abs(spectrum.argmax() - hertz) <= 2  # 1 s: a bin is a hertz


def test_a_video_without_a_sound_is_one_of_pictures_where_none_is_needed(tmp_path: Path) -> None:
    mute = video(tmp_path / "a.mkv", sounds=False)
    with pytest.raises(InputError):
        list(moments(mute, every=2.0, window=1.0, sample_rate=RATE))
    found = list(moments(mute, every=2.0, window=1.0, sample_rate=RATE, needs_sound=False))
    assert len(found) == 8 and all(moment.sound is None for moment in found)


def test_pairs_keeps_what_belongs_together_and_says_what_it_drops(mmx_in_process, debug_models, tmp_path: Path) -> None:
    bridge, decoder = debug_models
    (tmp_path / "videos").mkdir()
    video(tmp_path / "videos" / "a.mkv")
    (tmp_path / "videos" / "b.mp4").write_bytes(b"no video")
    soundfile.write(tmp_path / "c.wav", tone(2.0), RATE)
    out = tmp_path / "pairs"
    models = ("--bridge", bridge, "--decoder", decoder)
    code, text, err = mmx_in_process(
        "pairs",
        tmp_path / "videos",
        tmp_path / "c.wav",
        "-o",
        out,
        "--every",
        2,
        "--window",
        1,
        "--top",
        3,
        "--json",
        *models,
    )
    assert code == 0, err.decode()
    said = json.loads(text)
    assert said["kept"] == 3 and said["dropped"] == {"silent": 2, "flat": 2, "not the best": 1, "outlier": 0}
    assert len(said["unreadable"]) == 2
    rows = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    for row in rows:
        colour = np.asarray(Image.open(out / row["target"])).mean((0, 1))
        samples, _ = soundfile.read(out / row["source"])
        assert (colour[0] > colour[2]) == (np.abs(np.fft.rfft(samples)).argmax() == pytest.approx(300, abs=2))
    assert mmx_in_process("pairs", tmp_path / "videos", "-o", out, *models)[0] == 2
    assert mmx_in_process("data", "check", out / "pairs.jsonl")[0] == 0
    assert mmx_in_process("pairs", tmp_path / "videos" / "b.mp4", "-o", tmp_path / "none", *models)[0] == 3
