"""`mmx show`."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from dataclasses import dataclass
from typing import Annotated, Optional

import typer

from mmx.cli.preview import in_colour
from mmx.cli.takes import takes
from mmx.errors import InputError, UsageError
from mmx.media.files import Target, expand, output_file
from mmx.media.names import printable
from mmx.options import Overwrite

WINDOWS = ("hann", "hamming", "blackman", "boxcar")
SCALES = ("mel", "log", "linear")


@dataclass(frozen=True)
class Looking:
    """What is drawn, and how."""

    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A sound, a picture, a video, a mesh, a text, arrays, or - for stdin.",
            show_default=False,
        ),
    ]
    output: Annotated[
        Optional[str],
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="A PNG, of a mesh also a GIF that turns, or - for stdout. Default: the terminal.",
        ),
    ] = None
    window: Annotated[str, typer.Option(help="hann, hamming, blackman or boxcar.")] = "hann"
    scale: Annotated[str, typer.Option(help="Of frequencies: mel, log or linear.")] = "mel"
    fft: Annotated[int, typer.Option(min=32, max=65_536, help="Samples in a window.")] = 1024
    hop: Annotated[int, typer.Option(min=1, max=65_536, help="Samples from one window to the next.")] = 256
    overwrite: Overwrite = False

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
    """
    target = look.target()
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
