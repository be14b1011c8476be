"""mmx caption: the parts of ZeroCap beside naive twins, and the command on models of a few hundred kilobytes."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from mmx.device import placed
from mmx.guided.beams import Beams
from mmx.guided.caption import Guidance, Guided
from mmx.guided.captioner import Captioner
from mmx.guided.language import LanguageModel, load_language_model
from mmx.guided.residual import optimise
from mmx.guided.scorer import ByIds, ByText, scorer_for
from mmx.spaces.continued import Continued
from tests.small_language import LENGTH, small_lm, small_reads
from tests.small_space import small_space

SHOWN = {"green": "lime"}  # as pictures have it: all of it
CPU = placed("cpu", "auto")
# far and without our own bounds: a random model has no favourites that would have to be spared
FREE = Guidance(
    steps=8, temperature=0.01, rate=30.0, candidates=400, beam=3, longest=3, plausible=0.0, within=0.0, gain=0.0
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_lm(tmp_path_factory.mktemp("lm") / "small")


@pytest.fixture(scope="module")
def lm(folder: Path) -> LanguageModel:
    return load_language_model(str(folder), CPU)


def whole_texts(teacher, beginning: list[int], ids: list[int], end: int) -> torch.Tensor:
    """What the tower says of each whole text, read from its start."""
    rows = [[*beginning, *([token] if token != end else []), end] for token in ids]
    read = [torch.tensor([row]) for row in rows]
    return torch.cat([teacher.net.encode_text(row, torch.ones_like(row)) for row in read]).detach()


def test_a_continued_text_is_read_as_the_whole_text_is():
    teacher = small_reads()
    continued = Continued(teacher)
    beginnings = torch.tensor([[1, 70, 80, 90], [1, 90, 70, 71]])
    ids = torch.tensor([[65, 70, continued.end], [continued.end, 100, 65]])
    found = continued(beginnings, ids)
    for beginning, tokens, points in zip(beginnings.tolist(), ids.tolist(), found, strict=True):
        assert torch.allclose(points, whole_texts(teacher, beginning, tokens, continued.end), atol=1e-5)


def test_a_score_is_the_cosine_with_the_text_and_nothing_is_read_twice(lm, monkeypatch):
    teacher, mean = small_reads(), torch.full((12,), 0.1)
    scorer = ByIds(Continued(teacher), lm.vocabulary, mean)
    read = []
    plain = Continued.__call__

    def counting(self, beginnings, ids):
        read.append(ids.numel())
        return plain(self, beginnings, ids)

    monkeypatch.setattr(Continued, "__call__", counting)
    beginnings, targets = torch.tensor([[1, 70], [1, 70], [1, 71]]), F.normalize(torch.randn(3, 12), dim=1)
    ids = torch.tensor([[65, 66, 67], [66, 67, 68], [65, 66, 67]])
    found = scorer(beginnings, ids, targets)
    assert read == [8]  # two beginnings, after one of them four tokens: the rows of one beginning share them
    for row in range(3):
        points = whole_texts(teacher, beginnings[row].tolist(), ids[row].tolist(), lm.end)
        assert torch.allclose(found[row], F.normalize(points - mean, dim=1) @ targets[row], atol=1e-5)
    again = scorer(beginnings, torch.tensor([[67, 66, 65], [68, 66, 67], [65, 66, 99]]), targets)
    assert torch.equal(again[0], found[0].flip(0)) and read[1:] == [1]


def test_more_beginnings_at_once_than_are_kept_are_scored_as_each_alone(lm, monkeypatch):
    monkeypatch.setattr("mmx.guided.scorer.TABLES", 2)
    scorer, alone = (ByIds(Continued(small_reads()), lm.vocabulary, torch.zeros(12)) for _ in range(2))
    beginnings = torch.tensor([[1, 70], [1, 71], [1, 72], [1, 73], [1, 70]])  # the first again, after it was let go
    ids, targets = torch.tensor([[65, 66], [66, 67], [65, 68], [65, 66], [66, 69]]), torch.randn(5, 12)
    found = scorer(beginnings, ids, targets)
    for row in range(5):
        one = slice(row, row + 1)
        assert torch.allclose(found[one], alone(beginnings[one], ids[one], targets[one]), atol=1e-5)


def test_the_scorer_goes_by_ids_where_the_vocabulary_is_one_and_by_text_elsewhere(lm):
    space = replace(small_space(), continued=Continued(small_reads()))
    assert isinstance(scorer_for(space, lm, torch.zeros(12)), ByIds)
    assert isinstance(scorer_for(small_space(), lm, torch.zeros(8)), ByText)


def test_our_gpt2_gives_the_librarys_logits_and_its_cache_goes_on(folder, lm):
    from transformers import GPT2LMHeadModel

    theirs = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor([[1, 70, 80, 90, 66]])
    whole, _ = lm.causal(ids, None)
    assert torch.allclose(whole, theirs(ids).logits, atol=1e-4)
    _, past = lm.causal(ids[:, :3], None)
    second, past = lm.causal(ids[:, 3:4], past)
    third, _ = lm.causal(ids[:, 4:], past)
    assert torch.allclose(torch.cat((second, third), 1), whole[:, 3:], atol=1e-4)


@pytest.fixture(scope="module")
def library_lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    """A model that no network of ours is written down for."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.small_language import small_reader

    torch.manual_seed(0)
    folder, reader = tmp_path_factory.mktemp("llama"), small_reader()
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(reader), "bos_token_id": 1, "eos_token_id": len(reader) - 1, "pad_token_id": 0}
    LlamaForCausalLM(LlamaConfig(**sizes, **ids, max_position_embeddings=LENGTH)).save_pretrained(folder)
    reader.save(folder)
    return load_language_model(str(folder), CPU)


@pytest.mark.parametrize("which", ["lm", "library_lm"])
def test_every_shift_of_keys_and_values_gets_a_gradient(which, request):
    lm = request.getfixturevalue(which)
    ids = torch.tensor([[1, 70, 80]])
    with torch.no_grad():
        _, past = lm.causal(ids[:, :-1], None)
    shifts = [torch.zeros_like(tensor, requires_grad=True) for pair in past for tensor in pair]
    flat = [tensor + shift for tensor, shift in zip((t for pair in past for t in pair), shifts, strict=True)]
    logits, _ = lm.causal(ids[:, -1:], list(zip(flat[::2], flat[1::2], strict=True)))
    logits[:, -1].log_softmax(-1)[0, 70].backward()
    assert len(shifts) == 4 and all(float(shift.grad.abs().sum()) > 0 for shift in shifts)


@pytest.mark.parametrize("which", ["lm", "library_lm"])
@pytest.mark.parametrize("colour", ["red", "green", "blue"])
def test_a_colour_is_written_only_where_the_space_sees_it(which, colour, request):
    lm, space = request.getfixturevalue(which), small_space()
    pictures = [Image.new("RGB", (8, 8), name) for name in (SHOWN.get(colour, colour), "white")]
    with_hints = Captioner(space, lm, FREE)
    target = space.encode([pictures[0]], "image") - space.encode([pictures[1]], "image")  # nothing but the colour
    guided = with_hints.captions(F.normalize(target, dim=1), "a")[0][0]
    alone = Captioner(space, lm, replace(FREE, steps=0)).captions(F.normalize(target, dim=1), "a")[0][0]
    assert colour in guided.text and colour not in alone.text
    assert guided.text.startswith("a") and guided.score > alone.score


def test_beams_are_those_of_a_search_in_lists(lm):
    """Beside a naive search over tokens whose probabilities depend on the last one alone."""
    generator = torch.Generator().manual_seed(5)
    table = torch.randn(lm.vocabulary, lm.vocabulary, generator=generator).mul(3).log_softmax(-1)
    table[:, lm.end] += 2.0  # so that some end early
    beams = Beams.begin([1, 70], 1, 4, lm)
    for _ in range(5):
        parents = beams.grow(table[beams.live[:, -1]])
        if not len(parents):
            break
    rows: list[tuple[list[int], float, int]] = [([70], 0.0, 0)]
    for _ in range(5):
        grown = []
        for row, total, count in rows:
            if row[-1] == lm.end:
                grown.append((row, total, count))
                continue
            grown += [([*row, k], total + float(table[row[-1], k]), count + 1) for k in range(lm.vocabulary)]
        rows = sorted(grown, key=lambda own: -own[1] / max(1, own[2]))[:4]
    assert beams.results()[0] == [[k for k in row[1:] if k != lm.end] for row, _, _ in rows]


def test_texts_written_side_by_side_are_those_written_alone(lm):
    space = small_space()
    captioner = Captioner(space, lm, replace(FREE, steps=2, rate=3.0))
    pictures = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    targets = F.normalize(space.encode(pictures, "image") - space.encode(pictures, "image").mean(0), dim=1)
    together = captioner.captions(targets, "a", 2)
    alone = [captioner.captions(target[None], "a", 2)[0] for target in targets]
    assert [{c.text for c in own} for own in together] == [{c.text for c in own} for own in alone]


def test_one_step_is_zerocaps(lm):
    """Shift, by hand: one normalised step of cross entropy and 0.2 divergence, of each tensor alone."""
    guidance = Guidance(steps=1, rate=0.3, candidates=20, temperature=0.01, plausible=0.0, within=0.0, gain=0.0)
    space = small_space()
    guided = Guided(lm, ByText(space, lm, torch.zeros(8)), guidance)
    ids, target = torch.tensor([[1, 70, 80]]), F.normalize(torch.rand(1, 8), dim=1)
    with torch.no_grad():
        _, past = lm.causal(ids[:, :-1], None)
        banned = torch.zeros(lm.vocabulary).index_fill(0, torch.tensor(lm.unwritten), -1e4)
        before = (lm.causal(ids[:, -1:], past)[0][:, -1] + banned).log_softmax(-1)
    found = guided._shift(ids, past, target, before)
    shifts = [torch.zeros_like(t, requires_grad=True) for pair in past for t in pair]
    moved = [t + shift for t, shift in zip((t for pair in past for t in pair), shifts, strict=True)]
    log_p = (lm.causal(ids[:, -1:], list(zip(moved[::2], moved[1::2], strict=True)))[0][:, -1] + banned).log_softmax(-1)
    top = log_p.topk(20).indices[0]
    texts = space.encode([lm.decode([*ids[0].tolist(), k]) for k in top.tolist()], "text")
    wanted = ((texts @ target[0]) / 0.01).softmax(0)
    loss = -(wanted * log_p[0, top]).sum() + 0.2 * (log_p.exp() * (log_p - before)).sum()
    loss.backward()
    for (keys, values), first, second, k in zip(found, shifts[::2], shifts[1::2], range(2), strict=True):
        for after, was, shift in ((keys, past[k][0], first), (values, past[k][1], second)):
            step = 0.3 * shift.grad / shift.grad.norm() ** 0.9
            assert torch.allclose(after, was - step, atol=1e-5)


def test_the_rate_of_a_shift_falls_over_all_steps_and_in_the_paper_over_none(lm, monkeypatch):
    schedules = []

    def optimising(start, see, terms, schedule, **more):
        schedules.append(schedule)
        return optimise(start, see, terms, schedule, **more)

    monkeypatch.setattr("mmx.guided.caption.optimise", optimising)
    scorer = ByText(small_space(), lm, torch.zeros(8))
    for ease in (1.0, 0.0):
        guidance = replace(FREE, steps=4, rate=3.0, ease=ease, longest=1)
        Guided(lm, scorer, guidance).write([1, 70], F.normalize(torch.ones(1, 8), dim=1))
    eased, plain = ([schedule.lr_at(step) for step in range(4)] for schedule in schedules)
    assert plain == [3.0] * 4 and eased[0] == 3.0 and eased == sorted(eased, reverse=True) and eased[3] < 0.5


def test_of_captions_that_fit_alike_the_likelier_comes_first_and_one_that_fits_better_before_both():
    fits = {"a b": 0.80, "a c": 0.79, "a d": 0.9}
    likely = {"a b": -9.0, "a c": -3.0, "a d": -9.0}
    captioner = Captioner.__new__(Captioner)
    captioner.mean = torch.zeros(2)
    captioner.space = SimpleNamespace(
        encode=lambda texts, _: torch.tensor([[fits[text], (1 - fits[text] ** 2) ** 0.5] for text in texts])
    )
    names = {1: "a", 2: "b", 3: "c", 4: "d"}
    captioner.lm = SimpleNamespace(
        end=0,
        decode=lambda ids: " ".join(names[k] for k in ids),
        log_likelihood=lambda rows, begun: [likely[" ".join(names[k] for k in row if k)] for row in rows],
    )
    chosen = captioner._chosen("a", [1], [[2], [3], [4]], torch.tensor([1.0, 0.0]))
    assert [caption.text for caption in chosen] == ["a d", "a c", "a b"]


# the command


@pytest.fixture
def run(monkeypatch, mmx_in_process, folder, tmp_path):
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space())
    monkeypatch.chdir(tmp_path)
    for colour in ("red", "blue"):
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{colour}.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")

    def run(*words, code=0):
        found = mmx_in_process("caption", *words, "--lm", folder, "--candidates", 50, "--steps", 1)
        assert found[0] == code, found[2].decode()
        return found[1].decode(), found[2].decode()

    return run


def test_each_input_gets_its_lines_and_a_sum_is_one_input(run):
    out, err = run("red.png", "red.png + blue.png", "-n", 2)
    names = [line.partition(": ")[0] for line in out.splitlines()]
    assert names == ["red.png"] * 2 + ["red.png + blue.png"] * 2 and "synthetic" in err
    assert all(": Image of a" in line for line in out.splitlines())


def test_json_says_what_made_a_caption_and_a_file_keeps_it(run, tmp_path, bark):
    from mmx.digest import sha256

    out, _ = run(bark, "0.5*red.png + 'a dog'", "--json", "--seed", 3, "-o", "made.jsonl")
    first, second = map(json.loads, out.splitlines())
    assert first["schema"] == "mmx.caption/1" and first["synthetic"] is True
    assert first["inputs"] == [{"name": "bark.wav", "sha256": sha256(bark.read_bytes()), "weight": 1.0}]
    assert first["settings"]["prefix"] == "The sound of a" and first["settings"]["seed"] == 3
    assert len(first["lm"]["sha256"]) == 64 and first["space"]["name"] == "small"
    assert second["inputs"][0]["weight"] == 0.5 and second["inputs"][1] == {"text": "a dog", "weight": 1.0}
    assert first["captions"][0].keys() == {"text", "score", "perplexity"}
    assert (tmp_path / "made.jsonl").read_text() == out
    run("red.png", "-o", "made.jsonl", code=2)
    run("red.png", "-o", "made.txt")
    assert (tmp_path / "made.txt").read_text().startswith("Image of a")


def test_inputs_side_by_side_are_captioned_as_alone(run):
    assert run("red.png", "blue.png", "red.png", "--batch", 2)[0] == run("red.png", "blue.png", "red.png")[0]


def test_a_bad_input_is_told_and_the_others_are_captioned(run):
    out, err = run("broken.png", "red.png", "--batch", 4, code=6)
    assert out.startswith("red.png: ") and "broken.png" in err
    run("broken.png", code=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.png"], "no such file"),
        (["red.png", "-o", "out.png"], ".txt or .jsonl"),
        (["red.png", "--prefix", "red car " * 20], "there is room for"),
        (["red.png + "], "a term is missing"),
        (["red.png - red.png"], "cancel"),
    ],
)
def test_what_makes_no_sense_is_refused(run, words, said):
    assert said in run(*words, code=2)[1]


def test_a_folder_that_is_no_language_model_is_refused(run, tmp_path, mmx_in_process):
    (tmp_path / "empty").mkdir()
    code, _, err = mmx_in_process("caption", "red.png", "--lm", "empty")
    assert code == 4 and "no language model" in err.decode()
    code, _, err = mmx_in_process("caption", "red.png", "--lm", "gone")
    assert code == 2 and "no such model folder" in err.decode()


def test_a_space_without_texts_is_refused(run, monkeypatch):
    monkeypatch.setattr("mmx.spaces.load.load_space", lambda *_, **__: small_space(without="text"))
    assert "has no texts" in run("red.png", code=4)[1]


def test_ctrl_c_keeps_the_captions_so_far(run, monkeypatch, tmp_path):
    """In the second input's first gradient step."""
    plain, seen = ByText.__call__, []

    def interrupting(self, beginnings, candidates, targets):
        seen.append(targets[0].tolist())
        if seen[-1] != seen[0]:
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, beginnings, candidates, targets)

    whole = run("red.png")[0]
    seen.clear()
    monkeypatch.setattr(ByText, "__call__", interrupting)
    out, _ = run("red.png", "blue.png", "-o", "made.txt", code=130)
    assert out == whole and (tmp_path / "made.txt").read_text() in out


def test_fast_captions_are_those_of_their_seed(run):
    first, again, other = (run("red.png", "--fast", "-n", 3, "--seed", seed)[0] for seed in (1, 1, 2))
    assert first == again != other


def test_sampling_prefers_what_fits_and_goes_over_a_sentence(lm):
    space = small_space()
    target = F.normalize(space.encode([Image.new("RGB", (8, 8), "red")], "image")
                         - space.encode([Image.new("RGB", (8, 8), "white")], "image"), dim=1)  # fmt: skip
    found = {}
    for sweeps in (0, 4):
        captioner = Captioner(space, lm, Guidance(steps=sweeps, longest=4, beam=4), fast=True)
        found[sweeps] = captioner.captions(target, "a", 4, seed=0)[0]
    assert "red" in found[4][0].text
    assert sum(c.score for c in found[4]) > sum(c.score for c in found[0])


def test_perplexity_is_that_of_the_tokens_after_the_prefix(lm):
    ids = lm.encode("red car on a")
    row = [*ids, lm.end]
    log_p = lm.causal(torch.tensor([row[:-1]]), None)[0].log_softmax(-1)[0]
    expected = sum(float(log_p[k - 1, row[k]]) for k in range(2, len(row)))
    assert lm.log_likelihood([row, row[:4]], 2)[0] == pytest.approx(expected, abs=1e-4)
