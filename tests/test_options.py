"""Every option that a command declares has an effect there: it changes what the command asks of the code below it, or
says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from mmx.cli.commands import COMMANDS
from mmx.cli.group import load_command
from mmx.device import KINDS
from mmx.digest import sha256
from mmx.media.audio import Waveform, wav_bytes
from mmx.media.image import png_bytes
from mmx.media.provenance import SCHEMA, text_chunks
from tests.conftest import ROOT, tone
from tests.small_mesh import QUAD

BARK, SEA = (ROOT / "assets" / "samples" / f"{name}.wav" for name in ("bark", "sea"))
PHOTO = next((ROOT / "assets").rglob("*.jpg"), None) or next((ROOT / "assets").rglob("*.png"))

# a line of each command that works; {tmp} is an empty folder, {photo}, {bark}, {sea}, {video} and {made} are files
LINES = {
    "sound2img": "{bark} -o {tmp}/out",
    "voice2face": "{bark} -o {tmp}/out",
    "img2speech": "{photo} -o {tmp}/out",
    "text2img": "words -o {tmp}/out",
    "translate": "{bark} --bridge {draws} -o {tmp}/out",
    "edit": "{photo} woman -o {tmp}/out",
    "embed": "{bark} -o {tmp}/out.safetensors",
    "tag": "{bark}",
    "index": "{bark} -o {tmp}/my.idx",
    "calibrate": "{data} -o {tmp}/known.json",
    "localize": "{photo} red -o {tmp}/heat.png",
    "caption": "{bark} {sea} -o {tmp}/out.txt",
    "avatar": "{mesh} red -o {tmp}/out.png",
    "search": "{data} red --sheet {tmp}/hits.png",
    "show": "{bark} -o {tmp}/out.png",
    "inspect": "{made}",
    "reproduce": "{made} {bark} -o {tmp}/again.png",
    "train-decoder image": "--family gan --data {data} -o {tmp}/run",
    "train-decoder face": "--data {data} -o {tmp}/run",
    "train-decoder speech": "--data {data} -o {tmp}/run",
    "train-decoder text": "--data {data} -o {tmp}/run --init {other} --captions {words}",
    "train-lm": "--captions {words} -o {tmp}/run",
    "train-mapper": "woman --data {data} -o {tmp}/run",
    "train-words": "--captions {words} -o {tmp}/run",
    "train-bridge sound2img": "--data {data} -o {tmp}/run",
    "eval": "sound2img --data {data} -o {tmp}/report",
    "pairs": "{video} -o {tmp}/out",
    "data speak": "{data} -o {tmp}/out --sentences {sentences}",
    "data edges": "{data} -o {tmp}/out",
    "data check": "{data}",
    "models ls": "",
    "models pull": "kandinsky-2.2",
    "models verify": "starter/sound2img",
    "models rm": "kandinsky-2.2",
    "serve": "",
    "config show": "",
    "config set": "device cpu",
    "help": "show",
    "demo": "",
    "report": "{made_in} -o {tmp}/r.html",
    "sign": "{made} -o {tmp}/signed.png",
    "doctor": "",
}
# what the options that take words are given
WORDS = {
    "--mix": "{sea}:0.3",
    "--plus": "sunset",
    "--minus": "sunset",
    "--interpolate": "{sea}",
    "--image": "{photo}",
    "--bridge": "{other}",
    "--decoder": "{other}",
    "--encoder": "{other}",
    "--teacher": "{other}",
    "--init": "{other}",
    "--judge": "{other}",
    "--judge-network": "efficientnet-lite2",
    "--cache": "{other}",
    "--device": "cpu",
    "--dtype": "fp16",
    "--voice": "rms",
    "--spectrogram": "{tmp}/said.png",
    "--window": "boxcar",
    "--scale": "linear",
    "--split": "test",
    "--task": "voice2face",
    "--architecture": "transformer",
    "--norm": "batch",
    "--source": "sound+image",
    "--loss": "mse",
    "--metric": "val_loss",
    "--mixed-precision": "no",
    "--push-to-hub": "me/mine",
    "--notes": "about",
    "--space": "{other}",
    "--sound": "{sea}",
    "--text": "words",
    "--mask": "{tmp}/mask.png",
    "--preview": "{tmp}/preview.png",
    "--modality": "sound",
    "--lm": "{other}",
    "--mapper": "{other}",
    "--data": "{data}",
    "--tokenizer": "{other}",
    "--sounds": "{words}",
    "--prefix": "words",
    "--labels": "fox,hen,owl",
    "--labels-file": "{words}",
    "--server": "{other}",
    "--certificate": "{words}",
    "--key": "{words}",
    "--engine": "ray",
    "--address": "host:6379",
    "--inputs": "{samples}",
    "--title": "pictures",
    "--socket": "{tmp}/serve.sock",
    "--host": "::1",
}
NUMBERS = {"--threshold": 0.9, "--top-p": 0.5, "--dropout": 0.5, "--smoothing": 0.5, "--size": 64}
NUMBERS |= {"--often": 0.1, "--vocabulary": 400, "--width": 320, "--reach": 0.3, "--faces": 500}
# what an option makes sense beside
BESIDE = {
    "--patience": "--metric val_loss",
    "--lora": "--encoder {other}",
    "--average": "-o {tmp}/one.png",
    "--host": "--port 0",
    "--certificate": "--certificate {bark} --key {bark}",
    "--key": "--certificate {bark} --key {bark}",
    "--address": "--engine ray",
    "--workers": "--engine ray",
    "--gpus": "--engine ray",
}
TEXTS = {"--captions", "--text-steps"}
# of the other families, or in a value's place; a line that gives them is refused
ELSEWHERE = {
    "eval": {"--lm"},
    "show": {"--near", "--words"},
    "config set": {"--unset"},
    "translate": {"--voice", "--speed"},
    "train-bridge sound2img": {"--as", "--teacher"},
    "models pull": {"--quiet"},  # of what only a terminal is told: tests/test_hub.py
    "reproduce": {"--space"},
    "train-decoder image": {"--codec-steps", "--denoiser-steps", "--finish-steps", "--vocoder-steps"} | TEXTS,
    "train-decoder face": {"--family", "--gan-steps", "--init", "--vocoder-steps"} | TEXTS,
    "train-decoder speech": {"--family", "--gan-steps", "--space-steps", "--teacher"}
    | {"--denoiser-steps", "--finish-steps"}
    | TEXTS,
    "train-decoder text": {"--family", "--gan-steps", "--space-steps", "--teacher", "--codec-steps"}
    | {"--denoiser-steps", "--finish-steps", "--vocoder-steps"},
}


def declared() -> Iterator[tuple[str, Any]]:
    """(a key of LINES, an option that its command declares), but for --help and what its line already gives."""
    for line, rest in LINES.items():
        first, _, second = line.partition(" ")
        command = load_command(first)
        command = command.commands[second] if hasattr(command, "commands") else command
        for option in command.params:
            name = max(option.opts, key=len)
            given = option.required or any(own in rest.split() for own in option.opts)
            if name.startswith("--") and not given and name not in ELSEWHERE.get(line, ()):
                yield line, option


def spelled(option: Any) -> str:
    """An option with a value that is not its default."""
    name = max(option.opts, key=len)
    if getattr(option, "is_flag", False):
        return name
    if name in WORDS and not isinstance(option.default, int | float):
        return f"{name} {WORDS[name]}"
    return f"{name} {NUMBERS.get(name, (option.default or 2) + 1)}"


@dataclass
class Below:
    """Stands where the models are, and notes what it is asked for."""

    asked: list[Any] = field(default_factory=list)

    def note(self, what: str, answer: Any = None) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.asked.append((what, arguments, options))
            return answer(*arguments, **options) if callable(answer) else answer

        return call


def shown(value: Any) -> str:
    """An object by what is in it."""
    if isinstance(value, dict):
        return str({name: shown(inner) for name, inner in value.items() if name != "started"})  # a time
    if isinstance(value, list | tuple):
        return str([shown(inner) for inner in value])
    if isinstance(value, bytes):
        return sha256(value)  # a photo's repr has megabytes
    if value is os.environ:
        return "environment"  # it names the test
    return shown(vars(value)) if type(value).__module__.startswith("mmx.") else repr(value)


def run_job(_: Any, job: Any) -> Any:
    from mmx.translate.job import Artifact, Done

    data = wav_bytes(Waveform(tone(0.5), 16_000)) if job.command == "img2speech" else artifact()
    count = len(job.indices) if job.layout == "single" else 1
    persons = 1 if job.settings.average else len(job.of("source"))
    return Done([Artifact(data, {"machine": {"threads": 1, "cpu": "any"}})] * count, [[]] * persons, {"read": 0.0})


@pytest.fixture
def below(monkeypatch: pytest.MonkeyPatch) -> Below:
    """Replaces what the commands call; what they say and write stays as it is."""
    found = Below()
    translator = SimpleNamespace(
        notice="",
        watch=None,
        models={"bridge": SimpleNamespace(name="starter/sound2img", sha256="0", as_dict=dict)},
        bridge_at=SimpleNamespace(folder="bridge"),
        bridge=SimpleNamespace(config="config"),
    )
    report = SimpleNamespace(write=lambda output, about: {"split": "val"})
    from mmx.guided.avatar_job import dress
    from mmx.models.doctor import Check
    from mmx.spaces.answers import Consulted
    from mmx.spaces.base import Calibration
    from mmx.spaces.indexing import Indexed
    from mmx.spaces.parts import Part
    from mmx.training.video_pairs import VideoPairs
    from tests.small_space import small_space

    problems = ("unreadable", "silent", "short", "duplicate", "leak", "alone")
    lm = SimpleNamespace(at=SimpleNamespace(name="lm", as_dict=lambda: {"name": "lm"}))
    consulted = Consulted(small_space(), lm)
    served = SimpleNamespace(
        place="elsewhere",
        notice="",
        models=consulted.models,
        facts=vars(consulted.facts),
        run=lambda job: run_job(None, job),
        ask=lambda question: list(consulted.run(question)),
        dress=lambda order, watcher: dress(consulted.space, order, watcher),
    )
    pool = SimpleNamespace(**vars(served), width=1, close=lambda: None)
    listener = SimpleNamespace(where="here", token="", files=(), close=lambda: None)
    checked = SimpleNamespace(counts={"sources": 3}, unusable=0, names={name: [] for name in problems})
    replaced: dict[str, Any] = {
        "mmx.translate.load.load": translator,
        "mmx.translate.job.run": run_job,
        "mmx.serving.client.Served": served,
        "mmx.cluster.pool.Pool": pool,
        "mmx.cli.engine.require": None,
        "mmx.cli.sign.require": None,
        "mmx.media.credentials.self_signed": "nobody",
        "mmx.media.credentials.identity": "somebody",
        "mmx.media.credentials.sign": b"signed",
        "mmx.cli.preview.in_colour": True,
        "mmx.media.terminal.protocol": "blocks",
        "mmx.serving.app.make_app": "app",
        "mmx.serving.demo.make_page": SimpleNamespace(block_thread=lambda: None),
        "mmx.serving.demo.show_page": "there",
        "mmx.cli.demo.require": None,
        "mmx.serving.listen.on_socket": listener,
        "mmx.serving.listen.on_port": listener,
        "mmx.serving.listen.listen": lambda *given: given[-1](),
        "mmx.evaluation.pairs.measure": report,
        "mmx.training.card.add_evaluation": Path("card"),
        "mmx.training.video_pairs.make_pairs": VideoPairs(kept=1),
        "mmx.data.check.check": checked,
        "mmx.data.spoken_captions.make_corpus": 3,
        "mmx.data.edges.make_edges": 3,
        "mmx.training.language.train_language_model": Path("run"),
        "mmx.training.mapper.train_mapper": Path("run"),
        "mmx.training.words.train_words": Path("run"),
        "mmx.guided.language.load_language_model": lm,
        "mmx.guided.captioning.Captioner": lambda space, lm, guidance, **_: captioner(found, space, lm, guidance),
        "mmx.training.decoders.unclip.train_decoder": None,
        "mmx.training.decoders.gan_stages.train_gan_decoder": None,
        "mmx.training.decoders.text_stage.train_text": None,
        "mmx.training.decoders.speech.train_speech_decoder": None,
        "mmx.training.bridges.train.train_bridge": None,
        "mmx.models.store.push": None,
        "mmx.models.store.refuse_push": None,
        "mmx.models.hub.pull": [Path("folder")],
        "mmx.models.hub.remove": (1, []),
        "mmx.spaces.load.load_space": small_space(),
        "mmx.guided.avatar_job.portrait": lambda _, job: drawn(job),
        "mmx.guided.avatar_job.artifact": b"a mesh",
        "mmx.guided.avatar_job.record_of": {},
        "mmx.guided.avatar_job.preview_bytes": b"how it looks by now",
        "mmx.spaces.answers.parts_of": lambda *_: [Part("sound", Waveform(tone(0.1), 16_000))],
        "mmx.spaces.calibration.calibrate": Calibration("f" * 64),
        "mmx.spaces.indexing.update": Indexed(rows=1),
        "mmx.spaces.search.find": [],
        "mmx.models.doctor.checks": [Check("disk", True, "there", "")],
    }
    for name, answer in replaced.items():
        monkeypatch.setattr(name, found.note(name, answer))
    monkeypatch.setattr("mmx.data.check.PROBLEMS", dict.fromkeys(problems, "a problem"))
    monkeypatch.setitem(KINDS, "cuda", lambda: True)  # or --device cpu would be what auto is
    return found


def captioner(found: Below, space: Any, lm: Any, guidance: Any) -> Any:
    """Stands where captions are written."""
    import torch

    from mmx.guided.captioner import Caption

    target = SimpleNamespace(query=found.note("query", torch.zeros(8)))
    written = found.note("captions", lambda targets, prefix, num, **_: [[Caption("text", 1.0, 1.0)]] * len(targets))
    return SimpleNamespace(
        compass=target, captions=written, begin=found.note("begin"), lm=lm, space=space, guidance=guidance
    )


def drawn(job: Any) -> Any:
    """A mesh that is done after one step."""
    from mmx.guided.residual import Outcome, Step

    step = Step(0, 1, 0.0, {}, True)

    def optimised(watch: Callable[..., None]) -> Outcome:
        watch(step, [])
        return Outcome([], 1, [step])

    sight = SimpleNamespace(space=SimpleNamespace(name="small"), front=0.0)
    return SimpleNamespace(job=job, mesh=SimpleNamespace(notes=(), faces=()), sight=sight, optimised=optimised)


def artifact() -> bytes:
    """A picture whose record asks for a bark."""
    record = {
        "schema": SCHEMA,
        "version": "0",
        "synthetic": True,
        "command": "sound2img",
        "inputs": [{"role": "source", "name": "bark.wav", "sha256": sha256(BARK.read_bytes()), "weight": 1.0}],
        "layout": "single",
        "indices": [0],
        "settings": {"seed": 0, "device": "cpu"},
        "heard": [[]],
        "libraries": {},
        "bridge": {"name": "starter/sound2img", "sha256": "0"},
        "decoder": {"name": "starter/image", "sha256": "0"},
    }
    return png_bytes(Image.new("RGB", (8, 8)), text_chunks(record))


@dataclass
class Folders:
    """What the lines name; every run finds the same."""

    root: Path
    runs: int = 0
    bare: dict[str, str] = field(default_factory=dict)  # the effect of a line without the option that is tested

    def __post_init__(self) -> None:
        (self.root / "data").mkdir()
        (self.root / "other" / "teacher" / "text_encoder").mkdir(parents=True)
        (self.root / "other" / "units").mkdir()
        (self.root / "other" / "model.safetensors").write_bytes(b"")
        (self.root / "video.mp4").write_bytes(b"")
        (self.root / "made.png").write_bytes(artifact())
        (self.root / "made").mkdir()
        (self.root / "made" / "made.png").write_bytes(artifact())
        (self.root / "mesh.obj").write_bytes(QUAD)
        (self.root / "words.txt").write_text("elk\nyak\n")
        (self.root / "sentences.txt").write_text("".join(f"{k} elks\n" for k in range(9)))
        (self.root / "draws").mkdir()
        (self.root / "draws" / "config.json").write_text('{"task": "sound2img"}')

    def fill(self, line: str) -> list[str]:
        """A line's words, with an empty folder for what is written."""
        self.runs += 1
        self.out.mkdir()
        names = {"data": "data", "other": "other", "video": "video.mp4", "made": "made.png", "tmp": self.out.name}
        names |= {"mesh": "mesh.obj", "words": "words.txt", "sentences": "sentences.txt"}
        names |= {"made_in": "made", "draws": "draws"}
        paths = {name: self.root / path for name, path in names.items()}
        return [word.format(bark=BARK, sea=SEA, photo=PHOTO, samples=BARK.parent, **paths) for word in line.split()]

    @property
    def out(self) -> Path:
        return self.root / f"out{self.runs}"

    def plain(self, text: str) -> str:
        """Without what differs between two equal runs: times, addresses, and the folder of this run."""
        return re.sub(r"\d+\.\d+(e-\d+)? ?s\b| at 0x\w+|mmx-demo-\w+", "", text.replace(self.out.name, "out"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp("lines"))


@pytest.fixture
def effect(mmx_in_process, below: Below, folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """All that a line does: its exit code, what it says, writes, and asks of the code below."""
    config = folders.root / "config.toml"
    monkeypatch.chdir(folders.root)
    monkeypatch.setenv("MMX_CONFIG", str(config))
    monkeypatch.setattr("mmx.cli.train.Line.command", "mmx")  # or each option would be seen there

    def run(line: str, *, twice: bool = False) -> str:
        config.unlink(missing_ok=True)  # what a line sets is no other line's default
        words = folders.fill(line)
        if twice:
            mmx_in_process(*(word for word in words if word != "--overwrite"))
        below.asked.clear()
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # what --offline sets
        code, out, err = mmx_in_process(*words)
        assert code == 0 or twice, err.decode()
        written = {path.relative_to(folders.out): sha256(path.read_bytes()) for path in folders.out.rglob("*.*")}
        written |= {"offline": os.environ["HF_HUB_OFFLINE"]}
        files = sorted((str(name), found) for name, found in written.items())
        return folders.plain(f"{code}\n{out.decode()}\n{err.decode()}\n{files}\n{shown(below.asked)}")

    return run


ROWS = [pytest.param(line, option, id=f"{line} {max(option.opts, key=len)}") for line, option in declared()]


@pytest.mark.parametrize(("line", "option"), ROWS)
def test_an_option_has_an_effect(effect, folders: Folders, line: str, option: Any) -> None:
    name = max(option.opts, key=len)
    beside = "" if (line, name) == ("data check", "--workers") else BESIDE.get(name, "")
    base = f"{line} {LINES[line]} {beside}"
    twice = name == "--overwrite"
    if not twice and base not in folders.bare:
        folders.bare[base] = effect(base)
    bare = effect(base, twice=True) if twice else folders.bare[base]
    assert bare != effect(f"{base} {spelled(option)}", twice=twice)


def test_two_equal_lines_have_equal_effects(effect, folders: Folders) -> None:
    """Or the test above would always pass; and what its lines did leaves no trace in those after them."""
    for base in [f"{line} {rest} " for line, rest in LINES.items()] + sorted(folders.bare):
        assert (folders.bare.get(base) or effect(base)) == effect(base), base


def test_every_command_has_a_line() -> None:
    names = {
        f"{name} {inner}" if inner else name
        for name in COMMANDS
        for inner in getattr(load_command(name), "commands", {None: None})
    }
    with_options = {line if line.split()[0] in ("data", "models", "config") else line.split()[0] for line in LINES}
    assert names - {"models path", "models card", "config path"} == with_options


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_listed_as_what_its_own_help_says(name: str) -> None:
    command = load_command(name)
    assert command.name == name and command.help.partition("\n\n")[0].replace("\n", " ") == COMMANDS[name].line


def test_no_help_text_loses_the_name_of_an_extra() -> None:
    """Rich takes [recipes] for a style and drops it, unless it is escaped."""
    for line in LINES:
        first, _, second = line.partition(" ")
        command = load_command(first)
        command = command.commands[second] if hasattr(command, "commands") else command
        for text in (command.help, *(getattr(option, "help", None) for option in command.params)):
            assert not re.search(r"mmx\[", text or ""), (line, text)
