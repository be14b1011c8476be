"""The one table of commands. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """A command: "module:attribute" of its function or of its app of commands, where help lists it, and as what."""

    where: str
    panel: str
    line: str  # the first of its own help; a test holds the two together


COMMANDS = {
    "sound2img": Row("mmx.cli.sound2img:sound2img", "Translate", "Turn sounds into pictures of what makes them."),
    "voice2face": Row("mmx.cli.voice2face:voice2face", "Translate", "Imagine faces that such a voice might have."),
    "img2speech": Row(
        "mmx.cli.img2speech:img2speech", "Translate", "Say what a picture shows, with no text in between."
    ),
    "text2img": Row(
        "mmx.cli.text2img:text2img",
        "Translate",
        "Turn texts into pictures, by the same prior and decoder that sounds drive. The starter knows 21 things.",
    ),
    "edit": Row(
        "mmx.cli.edit:edit", "Guided", "Edit a picture or a face toward a text or a sound; every network stays frozen."
    ),
    "translate": Row(
        "mmx.cli.any2any:translate",
        "Translate",
        "Translate by a bridge that you trained, from whatever it takes into whatever its decoder makes.",
    ),
    "embed": Row("mmx.cli.spaces:embed", "Spaces", "Embed pictures, sounds, texts and videos in one space."),
    "tag": Row(
        "mmx.cli.spaces:tag", "Spaces", "Name what pictures, sounds and videos are of, by labels that you choose."
    ),
    "index": Row(
        "mmx.cli.index:index",
        "Spaces",
        "Index pictures, sounds, texts and videos, so that `mmx search` finds them.",
    ),
    "search": Row(
        "mmx.cli.index:search", "Spaces", "Find what is nearest to a text, a picture, a sound, or a sum of them."
    ),
    "localize": Row(
        "mmx.cli.localize:localize", "Spaces", "Say where in a picture something is that a sound or a text is about."
    ),
    "calibrate": Row(
        "mmx.cli.calibrate:calibrate",
        "Spaces",
        "Measure from which similarity on a space may say that something is there.",
    ),
    "caption": Row(
        "mmx.cli.caption:caption",
        "Guided",
        "Say in words what pictures, sounds and sums of them show, by a language model that a space guides.",
    ),
    "avatar": Row(
        "mmx.cli.avatar:avatar",
        "Guided",
        "Colour and shape a mesh until it looks like what a text says, or what a sound is of.",
    ),
    "show": Row(
        "mmx.cli.show:show",
        "Look",
        "See what a bridge hears and sees: waveform and spectrogram of a sound, or a picture with its channels.",
    ),
    "inspect": Row("mmx.cli.look:inspect", "Look", "Say what made a file: inputs, models, seed, options."),
    "reproduce": Row(
        "mmx.cli.look:reproduce",
        "Look",
        "Make an artifact again from its inputs and compare the bytes. Exit code 0 only if they agree.",
    ),
    "sign": Row(
        "mmx.cli.sign:sign",
        "Look",
        "Put Content Credentials (C2PA) into a file that mmx made: a signed statement that it is synthetic.",
    ),
    "report": Row(
        "mmx.cli.report:report",
        "Look",
        "Show a folder of results on one page: inputs beside outputs, players, spectrograms, what made them.",
    ),
    "demo": Row(
        "mmx.cli.demo:demo",
        "Look",
        "Show a local page: microphone or files → pictures, faces, speech, by the starter models. Ctrl-C ends it.",
    ),
    "train-decoder": Row(
        "mmx.cli.train:train_decoder", "Train", "Train a decoder and its teacher from scratch → RUN/decoder."
    ),
    "train-bridge": Row(
        "mmx.cli.train:train_bridge",
        "Train",
        "Train a bridge into a frozen decoder: paired data → RUN, a folder that --bridge takes.",
    ),
    "train-lm": Row(
        "mmx.cli.train_lm:train_lm", "Train", "Train a language model that captions are written with → RUN/lm."
    ),
    "train-mapper": Row(
        "mmx.cli.train_mapper:train_mapper",
        "Train",
        "Train one text's edit of any picture, so that it takes no steps any more → RUN/mapper.",
    ),
    "train-words": Row(
        "mmx.cli.train_words:train_words",
        "Train",
        "Train vectors of words, in which words that are used alike lie near each other → RUN/words.",
    ),
    "pairs": Row(
        "mmx.cli.data:pairs",
        "Train",
        "Cut videos into pairs of sound and frame, and keep the moments in which both belong together.",
    ),
    "eval": Row(
        "mmx.cli.evaluate:evaluate", "Train", "Measure a bridge and its decoder on data that they have not seen."
    ),
    "data": Row("mmx.cli.data:app", "Train", "Make and check training data."),
    "serve": Row(
        "mmx.cli.serve:serve",
        "Models",
        "Keep models loaded, so that commands with --server auto (or MMX_SERVER=auto) need not load them.",
    ),
    "config": Row("mmx.cli.config:app", "Models", "Choose defaults once: show, set, path."),
    "help": Row("mmx.cli.help:help_", "Look", "Print the help of a command, or of all: for pipes, pages and search."),
    "doctor": Row(
        "mmx.cli.models:doctor",
        "Models",
        "Check Python, torch, CUDA, torchaudio, FFmpeg, caches, starter models and the disk, and say what to do.",
    ),
    "models": Row("mmx.cli.models:app", "Models", "Look after models: ls, pull, path, verify, rm, card."),
}
