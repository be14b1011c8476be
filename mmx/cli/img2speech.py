"""`mmx img2speech`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Optional

from mmx.cli.preview import Showing
from mmx.cli.takes import takes
from mmx.cli.translate import Request, carry_out
from mmx.declared import Option
from mmx.errors import UsageError
from mmx.media.files import output_file
from mmx.media.stores import expand
from mmx.network import Spread
from mmx.options import Files, Models, Output, Placement, Settings, Speaking


@dataclass(frozen=True)
class Drawing:
    """A picture beside the sound."""

    spectrogram: Annotated[
        Optional[Path],
        Option("--spectrogram", metavar="FILE.png", show_default=False, help="Also draw what was said."),
    ] = None

    def check(self, results: int, *, overwrite: bool) -> None:
        """Raises UsageError before any work."""
        if self.spectrogram is None:
            return
        if results != 1:
            raise UsageError("--spectrogram draws one result", hint="mmx show FILE draws any sound")
        output_file(self.spectrogram, ".png", "--spectrogram ").check(overwrite=overwrite)


@takes
def img2speech(
    files: Files,
    output: Output,
    speaking: Speaking,
    drawing: Drawing,
    models: Models,
    placement: Placement,
    spread: Spread,
    saying: Showing,
) -> None:
    """Say what a picture shows, with no text in between.

    mmx img2speech cat.jpg -o cat.wav

    cat bark.wav | mmx sound2img - -o - | mmx img2speech - -o said.wav
    """
    if speaking.beam and speaking.beam > 1 and speaking.temperature:
        raise UsageError("--beam searches and --temperature draws", hint="give one of them")
    sources = expand(files.inputs, "image")
    drawing.check(len(sources) * output.num, overwrite=output.overwrite)
    request = Request(
        "img2speech",
        sources,
        output=output,
        models=models,
        settings=Settings.of(speaking, placement),
        saying=saying,
        spread=spread,
        suffix=".wav",
        drawing=drawing.spectrogram,
    )
    carry_out(request)
