"""`mmx show`."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Annotated, Optional

from mmx.cli.preview import in_colour
from mmx.cli.takes import takes
from mmx.declared import Argument, Option
from mmx.errors import InputError, UsageError
from mmx.media.files import Target, expand, output_file
from mmx.media.names import printable
from mmx.options import Overwrite

WINDOWS = ("hann", "hamming", "blackman", "boxcar")
SCALES = ("mel", "log", "linear")
NEAR = 8  # words, that are said to be nearest


@dataclass(frozen=True)
class Looking:
    """What is drawn, and how."""

    files: Annotated[
        list[str],
        Argument(
            metavar="FILE | words WORD...",
            help="A sound, a picture, a video, a mesh, a text, arrays, or - for stdin; or words.",
            show_default=False,
        ),
    ]
    output: Annotated[
        Optional[str],
        Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="A PNG, of a mesh also a GIF that turns, or - for stdout. Default: the terminal.",
        ),
    ] = None
    window: Annotated[str, Option(help="hann, hamming, blackman or boxcar.")] = "hann"
    scale: Annotated[str, Option(help="Of frequencies: mel, log or linear.")] = "mel"
    fft: Annotated[int, Option(min=32, max=65_536, help="Samples in a window.")] = 1024
    hop: Annotated[int, Option(min=1, max=65_536, help="Samples from one window to the next.")] = 256
    near: Annotated[
        Optional[int],
        Option(min=1, max=1000, show_default=False, help="Of words: how many of the nearest. Default: 8."),
    ] = None
    words: Annotated[
        Optional[str],
        Option(metavar="FOLDER", show_default=False, help="Vectors of words by mmx train-words. Default: the starter."),
    ] = None
    overwrite: Overwrite = False

    @property
    def asked(self) -> list[str]:
        """What is asked about words; nothing where a file or a text is to be shown. Raises UsageError."""
        first, *others = self.files
        if first != "words" or not others:
            if others:
                raise UsageError(f"one thing at a time, and there are {len(self.files)}", hint="or: words WORD...")
            if self.near is not None or self.words is not None:
                raise UsageError("--near and --words are for words", hint="mmx show words WORD...")
            return []
        # king - man + woman, without quotes
        return [" ".join(others)] if any(part in ("+", "-") for part in others) else others

    @property
    def file(self) -> str:
        """The file or the text."""
        return self.files[0]

    def target(self) -> Target | None:
        """Where the drawing goes; None is the terminal. Raises UsageError."""
        if self.window not in WINDOWS:
            raise UsageError(f"--window {self.window}: no such window", hint=", ".join(WINDOWS))
        if self.scale not in SCALES:
            raise UsageError(f"--scale {self.scale}: no such scale", hint=", ".join(SCALES))
        if self.output is None:
            return None
        return output_file(self.output, ".gif" if self.turns else ".png")

    @property
    def turns(self) -> bool:
        """Whether a turntable is asked for."""
        return self.output is not None and self.output.lower().endswith(".gif")


@takes
def show(look: Looking) -> None:
    """See what a bridge hears and sees: waveform and spectrogram of a sound, or a picture with its channels.

    Of a video its size in T x H x W x C, frames, and a slice through all of them; of a mesh counts, bounds, whether it
    is watertight, and views from around.
    Of a text (several words that name no file, or a .txt file) the subwords that a text tower reads, their numbers and
    their nearest neighbours; of a .npy, .npz, .csv or .safetensors file what is in it, and the first array drawn.

    mmx show words dog "puppy - dog + cat" dog:barking::cat

    Of words the nearest others, and of sums and analogies the words that are nearest to them.
    """
    target = look.target()
    if look.asked:
        if target is not None:
            raise UsageError("words have nothing to draw", hint="leave -o out")
        _print_near(look)
        return
    text = _text(look.file)
    if text is not None:
        if target is not None:
            raise UsageError("a text has nothing to draw", hint="leave -o out")
        _print_subwords(text)
        return
    source = expand([look.file], "sound")[0]
    if target is not None:
        target.check(overwrite=look.overwrite)
    from mmx.cli.drawn import How, draw  # from here on it is slow: numpy and the readers

    drawing = draw(source.read(), source, How(look.window, look.scale, look.fft, look.hop, turns=look.turns))
    for line in drawing.lines:
        print(printable(line), file=sys.stderr)
    if target is not None:
        target.write(drawing.payload)
        return
    from mmx.media.show import in_letters
    from mmx.media.terminal import in_terminal

    how = in_terminal if in_colour(sys.stdout) else in_letters
    print(how(drawing.picture, min(shutil.get_terminal_size().columns, 120)))
    sys.stdout.flush()


def _text(given: str) -> str | None:
    """A text that was typed, or that a .txt file holds; None for what else was given. Raises InputError, UsageError."""
    if given.lower().endswith(".txt"):
        try:
            return expand([given], "text")[0].read().decode()
        except UnicodeDecodeError:
            raise InputError(f"{given}: not UTF-8") from None
    return given if " " in given.strip() and not os.path.exists(given) and not glob.has_magic(given) else None


def _print_subwords(text: str) -> None:
    from mmx.models.subwords import subwords

    for one in subwords(text):
        near = ", ".join(f"{piece} {cosine:.2f}" for piece, cosine in one.near)
        print(printable(f"{one.piece:<14} {one.number:>6}  {near}"))


def _print_near(look: Looking) -> None:
    from mmx.models.words import WordVectors, parse_terms

    asked = [(text, parse_terms(text)) for text in look.asked]
    vectors = WordVectors.load(look.words)
    for text, terms in asked:
        found = vectors.nearest(vectors.point(terms), look.near or NEAR, [term.word for term in terms])
        print(printable(f"{text}: {', '.join(f'{word} {cosine:.2f}' for word, cosine in found)}"))
