"""Units and vocoder against known answers; a picture in, speech out."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from mmx.decoders.speech import EDGE, PEAK, SpeechDecoder, load_vocoder, polished
from mmx.errors import UsageError
from mmx.media.audio import Waveform
from mmx.nets.speech import (
    HOP,
    MELS,
    SAMPLE_RATE,
    Codebook,
    UnitCodec,
    Vocos,
    collapse,
    expand,
    speech_mel,
    with_mel,
)
from mmx.nets.writer import Sampling, UnitWriter
from tests.conftest import ROOT, tone


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_mel_is_that_of_speecht5() -> None:
    from transformers import SpeechT5FeatureExtractor

    samples = tone(1.0, 440.0) + 0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE).astype(np.float32)
    theirs = SpeechT5FeatureExtractor()(
        audio_target=samples, sampling_rate=SAMPLE_RATE, return_tensors="pt"
    ).input_values[0]
    ours = speech_mel(torch.from_numpy(samples.astype(np.float32))[None])[0]
    assert ours.shape == theirs.shape == (SAMPLE_RATE // HOP + 1, MELS)
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=1e-3)


def test_a_vocoder_of_transformers_fits_in_the_same_place(tmp_path: Path) -> None:
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    config = SpeechT5HifiGanConfig(
        upsample_initial_channel=16, resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1]]
    )
    SpeechT5HifiGan(config).save_pretrained(tmp_path)
    mel = torch.randn(2, 12, MELS)
    theirs, ours = load_vocoder(tmp_path)(mel), Vocos(16, 16, 1)(mel)
    assert theirs.shape == ours.shape == (2, 12 * HOP)


def test_a_waveform_is_brought_to_a_mel() -> None:
    """One that has the mel already stays; another comes nearer with each round."""
    draws = np.random.default_rng(0)
    envelope = 1 + 0.8 * np.sin(np.arange(40 * HOP) / 2000)
    whole = torch.from_numpy((envelope * draws.standard_normal(40 * HOP) * 0.1).astype(np.float32))[None]
    mel = speech_mel(whole)[:, :40]
    inner = slice(2 * HOP, -2 * HOP)  # the last frame of the spectrum is beyond the mel
    torch.testing.assert_close(with_mel(whole, mel)[:, inner], whole[:, inner], atol=5e-3, rtol=0)
    other, errors = torch.from_numpy(tone(40 * HOP / SAMPLE_RATE, 300.0))[None], []
    other = other + 1e-3 * torch.from_numpy(draws.standard_normal(40 * HOP).astype(np.float32))
    for _ in range(5):
        errors.append((speech_mel(other)[:, :40] - mel).abs().mean().item())
        other = with_mel(other, mel)
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.1 * errors[0]


def test_rounds_bring_a_vocoder_to_its_mel() -> None:
    torch.manual_seed(0)
    plain, again = Vocos(16, 16, 1), Vocos(16, 16, 1, rounds=3)
    again.load_state_dict(plain.state_dict())
    mel = speech_mel(torch.from_numpy(tone(1.0, 440.0))[None])[:, :-1] + 0.01
    samples, better = plain(mel), again(mel)
    by_hand = with_mel(with_mel(with_mel(samples, mel), mel), mel)
    assert torch.equal(better, by_hand)
    before, after = ((speech_mel(x)[:, :-1] - mel).abs().mean() for x in (samples, better))
    assert after < before / 3
    better.square().mean().backward()
    assert all(p.grad.isfinite().all() for p in again.parameters())


def test_collapsing_is_undone_by_expanding() -> None:
    units = torch.tensor([4, 4, 4, 1, 2, 2, 4])
    short, counts = collapse(units)
    assert short.tolist() == [4, 1, 2, 4] and counts.tolist() == [3, 1, 2, 1]
    assert torch.equal(expand(short, counts), units)


def test_the_codebook_finds_clusters() -> None:
    """Codes that follow their members end at the centres, and none stays unused."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[5.0, 0.0], [-5.0, 0.0], [0.0, 5.0], [0.0, -5.0]])
    torch.manual_seed(0)
    book = Codebook(4, 2, decay=0.9)
    book.uses.zero_()
    for _ in range(200):
        x = centres[torch.randint(4, (64,), generator=generator)] + 0.1 * torch.randn(64, 2, generator=generator)
        book.follow(x, book.nearest(x), generator)
    assert torch.cdist(centres, book.rows).min(1).values.max() < 0.2
    naive = ((centres[:, None] - book.rows[None]) ** 2).sum(-1).argmin(1)
    assert torch.equal(book.nearest(centres), naive)


def test_polished_speech_is_fit_to_be_heard() -> None:
    for loudness in (1e-4, 0.1, 30.0):
        samples = loudness * tone(1.0, 200.0) * np.linspace(0.2, 1, SAMPLE_RATE).astype(np.float32) + loudness * 0.3
        out = polished(samples)
        assert np.abs(out).max() <= PEAK + 1e-6 and abs(out.mean()) < 0.01
        assert abs(out[0]) < 1e-4 and abs(out[-1]) < 1e-4
        edge = int(EDGE * SAMPLE_RATE)
        assert np.abs(np.diff(out[: edge // 2])).max() < 0.02
        assert 20 * np.log10(np.sqrt(np.mean(out**2))) > -30


def test_speed_and_voice(speech_models) -> None:
    decoder = SpeechDecoder.load(speech_models[1])
    units = torch.arange(20).repeat(2)
    plain, fast, other = (
        decoder.decode([units], **options)[0].samples for options in ({}, {"speed": 2.0}, {"voice": "rms"})
    )
    assert len(plain) == 40 * 2 * HOP and len(fast) == 20 * 2 * HOP
    assert len(other) == len(plain) and not np.array_equal(other, plain)
    with pytest.raises(UsageError, match="no such voice"):
        decoder.decode([units], voice="nobody")


def test_units_of_a_wave_are_those_of_its_mel(speech_models) -> None:
    decoder = SpeechDecoder.load(speech_models[1])
    wave = tone(1.0, 300.0)
    mel = speech_mel(torch.from_numpy(wave)[None])
    vectors = decoder.codec.vectors(mel)[0]
    naive = ((vectors[:, None] - decoder.codec.book.rows[None]) ** 2).sum(-1).argmin(1)
    assert torch.equal(decoder.targets([Waveform(wave, SAMPLE_RATE)])[0], naive)


def naive_greedy(writer: UnitWriter, patches: torch.Tensor, length: int) -> list[int]:
    """The whole prefix again for each unit, the best unit each time."""
    tokens: list[int] = []
    while len(tokens) < length:
        hidden = writer._hidden(patches[None], torch.tensor([tokens], dtype=torch.long))
        logits = writer.language.lm_head(hidden[:, -1])[0]
        logits[[writer.pad, writer.begin]] = float("-inf")
        if len(tokens) < 4:
            logits[writer.end] = float("-inf")
        tokens.append(int(logits.argmax()))
        if tokens[-1] == writer.end:
            return tokens[:-1]
    return tokens


@torch.no_grad()
def test_the_writers_loss_against_numpy() -> None:
    torch.manual_seed(0)
    writer = UnitWriter(10, 4, 6, width=32, depth=1, heads=2, dropout=0.0).eval()
    patches, said = torch.randn(2, 4, 6), [[1, 2, 3], [9, 8, 7, 0, 9]]
    tokens, counts = torch.full((2, 6), writer.pad), torch.zeros(2, 6, dtype=torch.long)
    for row, units in enumerate(said):
        tokens[row, : len(units) + 1] = torch.tensor([*units, writer.end])
        counts[row, : len(units)] = torch.arange(len(units)) + 1
    hidden = writer._hidden(patches, tokens)
    logits, lasting = writer.language.lm_head(hidden).numpy(), writer.lasting(hidden)[..., 0].numpy()
    told, spans = [], []
    for row, units in enumerate(said):
        for place, token in enumerate([*units, writer.end]):  # what has been heard so far foretells what comes
            scores = logits[row, place]
            told.append(np.log(np.exp(scores).sum()) - scores[token])
            if place < len(units):
                error = abs(lasting[row, place + 1] - np.log(place + 1))
                spans.append(0.5 * error**2 if error < 1 else error - 0.5)
    nll, duration, _ = writer.loss(patches, tokens, counts)
    assert nll.item() == pytest.approx(np.mean(told), rel=1e-4)
    assert duration.item() == pytest.approx(np.mean(spans), rel=1e-4)


@torch.no_grad()
def test_the_writer_learns_what_a_picture_says_and_when_to_stop() -> None:
    """Two pictures, two utterances of different length: greedy with its cache, a naive twin that recomputes everything,
    and a beam search all give them back."""
    torch.manual_seed(0)
    writer = UnitWriter(10, 4, 6, width=32, depth=1, heads=2, dropout=0.0)
    patches = torch.randn(2, 4, 6)
    said = [[1, 2, 3, 4, 5, 6], [9, 8, 7, 0, 9, 8, 3, 2]]
    tokens, counts = torch.full((2, 9), writer.pad), torch.zeros(2, 9, dtype=torch.long)
    for row, units in enumerate(said):
        tokens[row, : len(units) + 1] = torch.tensor([*units, writer.end])
        counts[row, : len(units)] = torch.arange(len(units)) % 3 + 1
    optimizer = torch.optim.Adam(writer.parameters(), 5e-3)
    with torch.enable_grad():
        for _ in range(250):
            nll, lasting, _ = writer.loss(patches, tokens, counts)
            (nll + lasting).backward()
            optimizer.step()
            optimizer.zero_grad()
    writer.eval()
    generator = torch.Generator().manual_seed(0)
    for row, units in enumerate(said):
        written = writer.write(patches[row], Sampling(), generator)
        short, repeats = collapse(written)
        assert short.tolist() == units == naive_greedy(writer, patches[row], 20)
        assert repeats.tolist() == (torch.arange(len(units)) % 3 + 1).tolist()
        assert torch.equal(collapse(writer.write(patches[row], Sampling(beam=3), generator))[0], short)
        draws = [
            writer.write(patches[row], Sampling(temperature=0.5), torch.Generator().manual_seed(5)) for _ in range(2)
        ]
        assert torch.equal(*draws)


def test_a_picture_speaks(mmx_in_process, speech_options, tmp_path: Path, photo: Path) -> None:
    arguments = ("img2speech", photo, "-o", tmp_path / "a.wav", "--spectrogram", tmp_path / "a.png", *speech_options)
    code, out, err = mmx_in_process(*arguments)
    assert code == 0 and out == b"", err.decode()
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == SAMPLE_RATE and len(samples) > 0 and np.abs(samples).max() <= PEAK + 1e-3
    assert Image.open(tmp_path / "a.png").width == 960
    assert mmx_in_process("reproduce", tmp_path / "a.wav", photo, *speech_options)[0] == 0
    code, out, _ = mmx_in_process("inspect", tmp_path / "a.wav")
    assert code == 0 and b"img2speech" in out and b"photo.png" in out
    code, out, _ = mmx_in_process("img2speech", photo, "-n", 3, "-o", tmp_path / "many", "--json", *speech_options)
    assert (
        code == 0 and len(json.loads(out)["outputs"]) == 3 and len(list((tmp_path / "many").glob("photo-*.wav"))) == 3
    )


def test_bad_pictures_and_options(
    mmx_in_process, speech_options, speech_models, tmp_path: Path, photo: Path, bark: Path
) -> None:
    (tmp_path / "half.png").write_bytes(photo.read_bytes()[:500])
    for bad in (tmp_path / "half.png", bark):
        code, _, err = mmx_in_process("img2speech", bad, "-o", tmp_path / "x.wav", *speech_options)
        assert code == 3 and b"Traceback" not in err
    assert mmx_in_process("img2speech", photo, "-o", tmp_path / "x.png", *speech_options)[0] == 2
    assert mmx_in_process("img2speech", photo, "-o", tmp_path / "x.wav", "--voice", "me", *speech_options)[0] == 2
    both = ("--beam", 3, "--temperature", 1.0)
    assert mmx_in_process("img2speech", photo, "-o", tmp_path / "x.wav", *both, *speech_options)[0] == 2
    Image.new("RGB", (64, 64), "white").save(tmp_path / "blank.png")
    code, _, err = mmx_in_process("img2speech", tmp_path / "blank.png", "-o", tmp_path / "b.wav", *speech_options)
    assert code == 0 and b"one flat colour" in err
    assert not (tmp_path / "x.wav").exists()


def test_an_image_encoder_that_the_bridge_does_not_know_is_refused(
    mmx_in_process, speech_options, tmp_path: Path, photo: Path
) -> None:
    from tests.debug import make_decoder

    torch.manual_seed(9)
    other = make_decoder(tmp_path / "other")
    heads = other / "teacher" / "heads.json"
    heads.write_text(heads.read_text() + "\n")
    code, _, err = mmx_in_process(
        "img2speech", photo, "-o", tmp_path / "x.wav", *speech_options[:4], "--encoder", other
    )
    assert code == 4 and b"debug/image" in err


def test_sound_to_picture_to_speech_in_a_real_shell(
    python, one_step_options, speech_options, tmp_path: Path, bark: Path
) -> None:
    mmx = f"{shlex.join(python)} -m mmx"
    line = f"cat {bark} | {mmx} sound2img - -o - {' '.join(one_step_options)}"
    line += f" | {mmx} img2speech - -o said.wav {' '.join(speech_options)}"
    environment = {**__import__("os").environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", line], cwd=tmp_path, capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert soundfile.info(tmp_path / "said.wav").samplerate == SAMPLE_RATE


def test_show_draws_what_is_there(mmx_in_process, tmp_path: Path, photo: Path) -> None:
    """A tone's lightest row lies where its frequency is, on each scale; a picture stands beside its channels."""
    soundfile.write(tmp_path / "tone.wav", tone(1.0, 2000.0), SAMPLE_RATE)
    rows = {"linear": 1 - 2000 / 8000, "log": 1 - np.log(2000 / 40) / np.log(8000 / 40)}
    for scale, place in rows.items():
        out = tmp_path / f"{scale}.png"
        code, _, _ = mmx_in_process("show", tmp_path / "tone.wav", "-o", out, "--scale", scale, "--window", "hamming")
        picture = np.asarray(Image.open(out).convert("L")).astype(float)[120:440]
        assert code == 0 and abs(picture.mean(1).argmax() / 320 - place) < 0.02
    assert mmx_in_process("show", photo, "-o", tmp_path / "p.png")[0] == 0
    sheet = np.asarray(Image.open(tmp_path / "p.png"))
    quarter = (sheet.shape[1] + 2) // 4
    assert sheet[:, quarter : quarter + 300, 1:].max() == 0  # the red channel has no green and no blue
    code, out, _ = mmx_in_process("show", tmp_path / "tone.wav")
    assert code == 0 and out.isascii() and b"@" in out  # not a terminal: letters
    assert mmx_in_process("show", tmp_path / "tone.wav", "--window", "square")[0] == 2
    assert mmx_in_process("show", __file__)[0] == 3


def test_the_unit_codec_keeps_the_length() -> None:
    codec = UnitCodec(units=8, code=4, width=8, hidden=8, depth=1)
    mel = torch.randn(1, 40, MELS)
    units = codec.encode(mel)
    assert units.shape == (1, 20) and codec.decode(units, torch.tensor([0])).shape == mel.shape


@torch.no_grad()
def test_of_many_candidates_the_likeliest_is_taken() -> None:
    """Against a naive twin: every candidate scored alone, unit by unit, with all views."""
    torch.manual_seed(0)
    writer = UnitWriter(6, 4, 5, width=16, depth=1, heads=2, dropout=0.0).eval()
    views = torch.randn(2, 4, 5)
    how = Sampling(1, 1.0, 1.0, candidates=5)
    kept: list[torch.Tensor] = []
    whole = writer._generate

    def generate(*arguments):
        kept.append(whole(*arguments))
        return kept[-1]

    writer._generate = generate
    written = collapse(writer.write(views, how, torch.Generator().manual_seed(3)))[0]
    scores = []
    for tokens in kept[0]:
        said = tokens[: (tokens == writer.end).nonzero()[0, 0] + 1] if writer.end in tokens else tokens
        total = 0.0
        for view in views:
            for place, token in enumerate(said):
                hidden = writer._hidden(view[None], said[None, :place])
                total += writer.language.lm_head(hidden[0, -1]).log_softmax(-1)[token].item()
        scores.append(total)
    best = kept[0][int(np.argmax(scores))]
    assert len(kept[0]) == 5 and len({tuple(row.tolist()) for row in kept[0]}) > 1
    assert written.tolist() == collapse(best[best < writer.pad])[0].tolist()


def test_what_the_starter_says_is_fit_to_be_heard() -> None:
    """Of any picture: it ends, lasts 0.6 to 6 s, stays below full scale, clicks at neither end, and is louder than -35
    LUFS.
    """
    from mmx.evaluation.img2speech import BAND, fitness
    from mmx.translate.load import load

    translator = load("img2speech", device="cpu")
    rng = np.random.default_rng(0)
    pictures = [
        Image.new("RGB", (64, 64), (120, 160, 220)),
        Image.fromarray(np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)),
        Image.fromarray(np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)),
        Image.fromarray(rng.integers(0, 255, (200, 300, 3)).astype(np.uint8)),
    ]
    said = [translator.translate(picture, indices=(0, 1), seed=3) for picture in pictures]
    waves, units = [w for t in said for w in t.media], [u for t in said for u in t.conditioning]
    found = fitness(waves, units)
    assert found["ends"] == found["in_time"] == 1 and BAND == (0.6, 6.0)
    assert found["peak"] <= PEAK + 1e-3 and found["quietest_lufs"] > -35 and found["edge"] < 0.02
    again = translator.translate(pictures[2], seed=3).media[0].samples
    assert np.array_equal(again, said[2].media[0].samples)
