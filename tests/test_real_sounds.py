"""Sounds as they lie about: what a player plays is heard, and what is missing is said."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from mmx.errors import InputError, UsageError
from mmx.media import audio, sound_part
from mmx.media.audio import Waveform, loudest, read_audio
from tests.conftest import tone
from tests.sounds import av_encoded, encoded, likeness, mp3_without_counts, packets_of, rising, with_data_size

RATE = 16_000


@pytest.mark.parametrize("size", [0x7FFFF000, 0x80000000, 0xFFFFFFDB, 0xFFFFFFFF, 0])
def test_sizes_that_streaming_writers_leave_in_a_wav_cost_nothing(size: int) -> None:
    whole = encoded(rising(), RATE)
    read = read_audio(with_data_size(whole, size), sample_rate=RATE, name="x")
    np.testing.assert_array_equal(read.samples, read_audio(whole, sample_rate=RATE).samples)
    assert read.notes == ()


@pytest.mark.parametrize("more", [1, 8, 36])
def test_a_size_that_counts_a_header_is_no_loss(more: int) -> None:
    whole = encoded(rising(), RATE)
    read = read_audio(with_data_size(whole, 96_000 + more), sample_rate=RATE, strict=True)
    assert len(read.samples) == 48_000 and read.notes == ()


def test_flac_from_a_pipe_has_no_total() -> None:
    flac = bytearray(encoded(rising(), RATE, "FLAC"))
    flac[21] &= 0xF0  # the upper bits of the total
    flac[22:26] = bytes(4)
    read = read_audio(bytes(flac), sample_rate=RATE)
    assert len(read.samples) == 48_000 and read.notes == ()


CUT = {
    "WAV": lambda x: encoded(x, RATE),
    "AIFF": lambda x: encoded(x, RATE, "AIFF", "PCM_16"),
    "AU": lambda x: encoded(x, RATE, "AU", "PCM_16"),
    "CAF": lambda x: encoded(x, RATE, "CAF", "PCM_16"),
    "W64": lambda x: encoded(x, RATE, "W64", "PCM_16"),
    "OGG": lambda x: encoded(np.concatenate([x] * 6), RATE, "OGG", "VORBIS"),
    "MP3": lambda x: encoded(x, RATE, "MP3"),
    "FLAC": lambda x: encoded(x, RATE, "FLAC"),
    "M4A": lambda x: av_encoded(x, RATE, "mp4", "aac", {"movflags": "faststart"}),
    "MKV": lambda x: av_encoded(x, RATE, "matroska", "aac"),
    "GSM in WAV": lambda x: encoded(x[::2], 8_000, "WAV", "GSM610"),
}


@pytest.mark.parametrize("kind", list(CUT))
def test_of_a_cut_file_what_is_there_is_heard(kind: str) -> None:
    data = CUT[kind](rising())
    whole = read_audio(data, sample_rate=RATE, strict=True)
    read = read_audio(data[: int(0.6 * len(data))], sample_rate=RATE, name="x")
    assert 0.35 < read.seconds / whole.seconds < 0.75
    assert likeness(read.samples[:-1500], whole.samples) > 0.99
    assert any("cut short" in note for note in read.notes), read.notes
    with pytest.raises(InputError, match=r"^x: .*cut short"):
        read_audio(data[: int(0.6 * len(data))], sample_rate=RATE, name="x", strict=True)
    asked = read_audio(data[: int(0.6 * len(data))], sample_rate=RATE, duration=0.5, strict=True)
    assert asked.seconds == 0.5 and not any(
        "cut" in note for note in asked.notes
    )  # nothing of what was asked for is missing


@pytest.mark.parametrize("kind", ["M4A", "MKV", "FLAC", "MP3", "OGG"])
def test_one_damaged_packet_costs_milliseconds(kind: str) -> None:
    data = bytearray(CUT[kind](rising()))
    whole = read_audio(bytes(data), sample_rate=RATE)
    packets = packets_of(bytes(data))
    at, size = packets[len(packets) // 2]
    data[at + 4 : at + size - 4] = bytes(np.random.default_rng(1).integers(0, 256, size - 8, dtype=np.uint8))
    read = read_audio(bytes(data), sample_rate=RATE, name="x")
    assert read.seconds > whole.seconds - (2.0 if kind == "OGG" else 0.6)  # which loses a page
    assert likeness(read.samples[: RATE // 2], whole.samples[: RATE // 2]) > 0.999
    assert likeness(read.samples[-RATE // 2 :], whole.samples[-RATE // 2 :], lag=1200) > 0.99
    if kind == "OGG":
        assert any("damaged" in note for note in read.notes)
    if kind == "M4A":
        assert read.notes == ("damaged at 1 place, which is left out",)
        with pytest.raises(InputError, match="damaged"):
            read_audio(bytes(data), sample_rate=RATE, name="x", strict=True)


def test_mp3_of_varying_bit_rate_without_a_count_is_read_to_its_end() -> None:
    samples = rising(12, 44_100)
    samples[: 44_100 * 8] *= 0.02  # the quiet part takes few bits: an estimate by them ends before the loud part
    with_counts = encoded(samples, 44_100, "MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    read = read_audio(mp3_without_counts(with_counts), sample_rate=RATE)
    assert abs(read.seconds - 12) < 0.1 and read.notes == ()
    loud = read_audio(mp3_without_counts(with_counts), sample_rate=RATE, window=2.0)
    assert loud.rms_db > -15
    turned = encoded(samples[::-1], 44_100, "MP3", bitrate_mode="VARIABLE", compression_level=0.3)
    assert read_audio(mp3_without_counts(turned), sample_rate=RATE).notes == ()  # its estimate is too long


def test_two_mp3_in_one_file_are_both_heard() -> None:
    one = encoded(rising(2), RATE, "MP3")
    assert read_audio(one + one, sample_rate=RATE).seconds > 3.9


def test_gsm_in_wav() -> None:
    samples = rising(2, 8_000)
    read = read_audio(encoded(samples, 8_000, "WAV", "GSM610"), sample_rate=8_000)
    assert abs(read.seconds - 2) < 0.03 and likeness(read.samples, samples[:, 0]) > 0.9


@pytest.mark.parametrize("coded", [False, True])
def test_channels_of_opposite_phase_do_not_cancel(coded: bool) -> None:
    one = rising()
    both = np.concatenate([one, -one], axis=1)
    data = av_encoded(both, RATE, "mp4", "aac", bit_rate=64_000) if coded else encoded(both, RATE)
    read = read_audio(data, sample_rate=RATE)
    assert likeness(read.samples, one[:, 0], lag=1100 * coded) > 0.98 and any(
        "opposite phase" in note for note in read.notes
    )
    window = read_audio(data, sample_rate=RATE, window=1.0)
    assert abs(window.rms_db - Waveform(loudest(one[:, 0], RATE), RATE).rms_db) < 0.5


def test_copies_of_a_channel_and_unrelated_channels_are_averaged() -> None:
    one = rising()
    for copies in (2, 6):
        read = read_audio(encoded(np.repeat(one, copies, 1), RATE), sample_rate=RATE)
        np.testing.assert_allclose(read.samples, read_audio(encoded(one, RATE), sample_rate=RATE).samples, atol=1e-6)
        assert read.notes == ()
    noise = np.random.default_rng(0).standard_normal((RATE, 2)).astype(np.float32) * 0.1
    np.testing.assert_allclose(
        read_audio(encoded(noise, RATE, subtype="FLOAT"), sample_rate=RATE).samples, noise.mean(1), atol=1e-6
    )


def test_a_start_alone_limits_the_search_for_the_loudest_stretch() -> None:
    samples = 0.01 * np.random.default_rng(0).standard_normal(RATE * 20).astype(np.float32)
    samples[RATE * 2 : RATE * 4] += tone(2.0, 300)
    samples[RATE * 12 : RATE * 14] += 0.5 * tone(2.0, 300)
    data = encoded(samples, RATE, subtype="FLOAT")
    anywhere = read_audio(data, sample_rate=RATE, window=2.0)
    np.testing.assert_array_equal(read_audio(data, sample_rate=RATE, start=0, window=2.0).samples, anywhere.samples)
    assert -20 < read_audio(data, sample_rate=RATE, start=6, window=2.0).rms_db < anywhere.rms_db - 5


@pytest.mark.parametrize("times", [{"start": np.inf}, {"start": np.nan}, {"start": -1.0}, {"duration": np.inf}])
def test_times_that_are_none(times: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="no time"):
        read_audio(encoded(rising(), RATE), sample_rate=RATE, **times)


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.mp4"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    monkeypatch.setattr(audio, "soundfile_track", None)  # nothing is opened
    monkeypatch.setattr(Path, "read_bytes", None)
    with pytest.raises(InputError, match="3072 MiB"):
        read_audio(path, sample_rate=RATE)
    from mmx.media.files import expand

    with pytest.raises(InputError, match="1 GiB"):
        expand([str(path)], "sound")[0].read()


def test_a_long_recording_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    add = sound_part.Loudest.add

    def watched(self: sound_part.Loudest, block: np.ndarray) -> None:
        add(self, block)
        held.append(len(self._held))

    monkeypatch.setattr(sound_part.Loudest, "add", watched)
    samples = rising(240)
    read = read_audio(encoded(samples, RATE, "FLAC"), sample_rate=RATE, window=5.0)
    assert len(held) > 20 and max(held) < 6 * RATE
    whole = read_audio(encoded(samples, RATE, "FLAC"), sample_rate=RATE).samples
    np.testing.assert_array_equal(read.samples, loudest(whole, 5 * RATE))


def test_the_loudest_stretch_does_not_depend_on_the_blocks() -> None:
    samples = np.random.default_rng(2).standard_normal(50_000).astype(np.float32)
    samples *= np.sin(np.arange(50_000) / 9_000).astype(np.float32)
    for size in (777, 10_000, 50_000):
        found = sound_part.Loudest(5_000)
        for at in range(0, 50_000, size):
            found.add(samples[at : at + size])
        np.testing.assert_array_equal(found.samples(), loudest(samples, 5_000))


def test_telephone_sound_says_so() -> None:
    read = read_audio(encoded(rising(1, 8_000), 8_000), sample_rate=RATE)
    assert read.notes == ("sampled at 8000 Hz as on a telephone: nothing above 4000 Hz is in it",)
    assert read_audio(encoded(rising(1, 8_000), 8_000), sample_rate=8_000).notes == ()
    assert read_audio(encoded(rising(1, 22_050), 22_050), sample_rate=RATE).notes == ()


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "a.ts").write_bytes(av_encoded(rising(), RATE, "mpegts", "mp2"))
    target = (tmp_path / "a.ts").as_posix()
    lists = (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile {target}\n",
    )
    for text in lists:
        with pytest.raises(InputError, match="not a sound"):
            read_audio(text.encode(), sample_rate=RATE)


def test_tags_in_another_encoding_do_no_harm() -> None:
    wav = encoded(rising(1), RATE)
    aac = av_encoded(rising(1), RATE, "mp4", "aac", {"movflags": "faststart"})
    info = b"LIST" + struct.pack("<I", 16) + b"INFOINAM" + struct.pack("<I", 4) + b"\xe9\xff\xfe\xe8"
    assert read_audio(wav + info, sample_rate=RATE).seconds == 1.0
    assert len(aac) and read_audio(aac.replace(b"Lavf", b"\xe9\xff\xfe\xe8"), sample_rate=RATE).seconds > 0.9


def test_anything_a_decoder_raises_is_an_unreadable_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ArithmeticError("a decoder's own bug")

    monkeypatch.setattr(audio, "soundfile_track", broken)
    assert read_audio(encoded(rising(), RATE), sample_rate=RATE).seconds == 3.0  # the other reader has a try
    monkeypatch.setattr(audio, "av_track", broken)
    with pytest.raises(InputError, match="x: not a sound"):
        read_audio(encoded(rising(), RATE), sample_rate=RATE, name="x")
