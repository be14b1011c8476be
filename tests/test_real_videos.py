"""Videos as telephones and recorders write them: each frame is upright and beside the sound of its moment."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from mmx.errors import InputError
from mmx.media.video import Moment, moments
from tests.conftest import RATE

RED, BLUE = (220, 30, 30), (30, 30, 220)
LOW, HIGH = 300.0, 3000.0  # Hz, heard while red or blue is seen
STEADY = tuple(np.arange(0, 8, 0.125))


def video(
    path: Path,
    *,
    frames: Sequence[float] = STEADY,
    change: float = 4.0,
    clock: float = 0.0,
    sound: tuple[float, float] = (0.0, 8.0),
    gap: tuple[float, float] | None = None,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    flipped: bool = False,
) -> Path:
    """Red and then blue from `change` on, with the tone of each; `frames` and `sound` in seconds, all plus `clock`."""
    with av.open(str(path), "w", options=options or {}) as container:
        picture = container.add_stream("mjpeg", rate=1000, width=64, height=32, pix_fmt="yuvj420p")
        picture.codec_context.time_base = Fraction(1, 1000)
        if rotation or flipped:
            picture.set_display_rotation(rotation, hflip=flipped)
        audio = container.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=RATE, layout="mono")
        packets = []
        for time in frames:
            pixels = np.zeros((32, 64, 3), np.uint8)
            pixels[:, 16:] = RED if time < change else BLUE  # black at the left
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = round((time + clock) * 1000), Fraction(1, 1000)
            packets += picture.encode(frame)
        for start in np.arange(*sound, 0.064):
            if gap and gap[0] <= start < gap[1]:
                continue
            t = np.arange(round(start * RATE), round(start * RATE) + 1024) / RATE
            wave = 0.4 * np.sin(2 * np.pi * np.where(t < 4.0, LOW, HIGH) * t)
            kind = "s16" if path.suffix == ".mkv" else "fltp"
            samples = (wave * 32767).astype(np.int16) if kind == "s16" else wave.astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples[None], kind, "mono")
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = round((start + clock) * RATE)
            packets += audio.encode(frame)
        packets += [*picture.encode(), *audio.encode()]
        for packet in sorted(packets, key=lambda p: float((p.dts or 0) * p.time_base)):
            container.mux(packet)
    return path


def colour(moment: Moment) -> str:
    red, _, blue = np.asarray(moment.frame)[10:22, 30:50].mean((0, 1)) if moment.frame.width > 32 else (0, 0, 0)
    return "red" if red > blue else "blue"


def pitch(moment: Moment) -> str:
    spectrum = np.abs(np.fft.rfft(moment.sound.samples))
    if moment.sound.rms_db < -60:
        return "silent"
    return "red" if abs(spectrum.argmax() * RATE / len(moment.sound.samples) - LOW) < 50 else "blue"


def cut(path: Path) -> list[Moment]:
    return list(moments(path, every=1.0, window=0.5, sample_rate=RATE))


def assert_together(found: list[Moment], count: int) -> None:
    assert len(found) == count and {colour(m) for m in found} == {"red", "blue"}
    assert [pitch(m) for m in found] == [colour(m) for m in found]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
@pytest.mark.parametrize("clock", [0.0, 100.0])
def test_where_a_files_clock_starts_does_not_matter(suffix: str, clock: float, tmp_path: Path) -> None:
    found = cut(video(tmp_path / f"a{suffix}", clock=clock))
    assert_together(found, 8)
    assert [m.seconds for m in found] == pytest.approx([k + 0.5 for k in range(8)], abs=0.01)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_sound_track_that_starts_late_or_ends_early(suffix: str, tmp_path: Path) -> None:
    found = cut(video(tmp_path / f"a{suffix}", sound=(3.0, 6.0)))
    assert [pitch(m) for m in found] == ["silent"] * 3 + ["red"] + ["blue"] * 2 + ["silent"] * 2


def test_a_hole_in_the_sound_moves_nothing(tmp_path: Path) -> None:
    found = cut(video(tmp_path / "a.mkv", gap=(1.2, 2.8)))
    assert [pitch(m) for m in found] == ["red", "silent", "silent", "red"] + ["blue"] * 4


def test_frames_that_last_differently_long(tmp_path: Path) -> None:
    times = (0.0, 0.1, 0.2, 0.6, 1.55, 1.6, 2.9, 3.5, 3.6, 4.5, 4.6, 4.7, 5.6, 6.5, 7.3, 7.9)
    found = cut(video(tmp_path / "a.mkv", frames=times))
    assert_together(found, 8)
    assert [m.seconds for m in found] == pytest.approx([0.6, 1.55, 2.9, 3.5, 4.5, 5.6, 6.5, 7.9], abs=0.01)


def test_a_picture_that_starts_late(tmp_path: Path) -> None:
    found = cut(video(tmp_path / "a.mkv", frames=tuple(t for t in STEADY if t >= 2)))
    assert_together(found, 6)


@pytest.mark.parametrize(("suffix", "count"), [(".mkv", 8), (".mp4", 7), (".mov", 7)])
def test_a_clock_that_starts_below_zero(suffix: str, count: int, tmp_path: Path) -> None:
    # Matroska moves all; in the others what is before zero is not shown
    assert_together(cut(video(tmp_path / f"a{suffix}", clock=-1.0)), count)


def test_an_edit_list_moves_the_picture(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", frames=tuple(np.arange(0, 10, 0.125)), change=6.0, options={"use_editlist": "1"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 8  # of the first track: flags, count, then its one edit
    count = struct.unpack(">I", data[at : at + 4])[0]
    assert count == 1
    scale = struct.unpack(">I", data[(place := data.index(b"mdhd") + 16) : place + 4])[0]
    data[at + 8 : at + 12] = struct.pack(">I", 2 * scale)  # the first two seconds are not shown
    path.write_bytes(data)
    assert_together(cut(path), 8)


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
@pytest.mark.parametrize("flipped", [False, True])
def test_frames_are_upright_whichever_way_the_telephone_was_held(rotation: int, flipped: bool, tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", rotation=rotation, flipped=flipped)
    frame = cut(path)[0].frame
    assert frame.size == ((64, 32) if rotation % 180 == 0 else (32, 64))
    shown = np.asarray(frame).sum(2)
    edges = {"left": shown[:, :8], "right": shown[:, -8:], "top": shown[:8], "bottom": shown[-8:]}
    black = min(edges, key=lambda name: edges[name].mean())
    # counter-clockwise, as FFmpeg counts
    turned = {0: "left", 90: "bottom", 180: "right", -90: "top"}[rotation]
    if flipped and rotation % 180 == 0:
        turned = {"left": "right", "right": "left"}[turned]
    assert black == turned or (flipped and black == {"top": "bottom", "bottom": "top"}.get(turned))


def test_a_damaged_frame_costs_no_video(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(container.streams.video[0]) if p.size]
        at, size = packets[20].pos, packets[20].size
    data[at + 20 : at + size] = bytes(size - 20)
    path.write_bytes(data)
    assert len(cut(path)) == 8


def test_a_record_with_a_cover_is_no_video(tmp_path: Path) -> None:
    from av.stream import Disposition

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        cover = container.add_stream("mjpeg", rate=1, width=64, height=32, pix_fmt="yuvj420p")
        cover.disposition = Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.ones((1, 4096), np.float32) * 0.1, "fltp", "mono")
        frame.sample_rate = RATE
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 64, 3), np.uint8), "rgb24")
        for packet in [*cover.encode(picture), *cover.encode(), *audio.encode(frame), *audio.encode()]:
            container.mux(packet)
    with pytest.raises(InputError, match="no picture"):
        cut(path)


def test_a_huge_empty_file_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(InputError):
        cut(path)
