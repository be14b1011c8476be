"""`mmx show`."""

from __future__ import annotations

import io
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
        str, typer.Argument(metavar="FILE", help="A sound or a picture, or - for stdin.", show_default=False)
    ]
    output: Annotated[
        Optional[str],
        typer.Option(
            "-o",
            "--output",
            metavar="OUT.png",
            show_default=False,
            help="A PNG, or - for stdout. Default: the terminal.",
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
        return None if self.output is None else output_file(self.output, ".png")


@takes
def show(look: Looking) -> None:
    """See what a bridge hears and sees: waveform and spectrogram of a sound, or a picture with its channels."""
    target = look.target()
    source = expand([look.file], "sound")[0]
    if target is not None:
        target.check(overwrite=look.overwrite)
    data = source.read()
    from mmx.media.audio import read_audio
    from mmx.media.image import png_bytes, read_image
    from mmx.media.notes import notes_of
    from mmx.media.show import View, draw_picture, draw_sound, in_letters
    from mmx.media.terminal import in_terminal

    try:
        medium = read_image(io.BytesIO(data), name=source.name)
        drawn = draw_picture(medium)
    except InputError as no_picture:
        if "not a picture" not in no_picture.message:
            raise
        medium = read_audio(data, sample_rate=None, name=source.name)
        drawn = draw_sound(medium, View(look.window, look.scale, look.fft, look.hop))
    for note in notes_of(medium):
        print(printable(f"{source.name}: {note}"), file=sys.stderr)
    if target is not None:
        target.write(png_bytes(drawn))
        return
    draw = in_terminal if in_colour(sys.stdout) else in_letters
    print(draw(drawn, min(shutil.get_terminal_size().columns, 120)))
    sys.stdout.flush()
