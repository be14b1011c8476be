"""`mmx voice2face`."""

from __future__ import annotations

from mmx.cli.preview import Showing
from mmx.cli.takes import takes
from mmx.cli.translate import Request, Strictness, carry_out
from mmx.errors import UsageError
from mmx.media.files import names_a_file
from mmx.media.stores import expand
from mmx.network import Spread
from mmx.options import Averaging, Excerpt, Files, Models, Pictures, Placement, Sampling, Settings


@takes
def voice2face(
    files: Files,
    output: Pictures,
    sampling: Sampling,
    averaging: Averaging,
    excerpt: Excerpt,
    strictness: Strictness,
    models: Models,
    placement: Placement,
    spread: Spread,
    saying: Showing,
) -> None:
    """Imagine faces that such a voice might have.

    The face is a plausible average drawn for a voice like this. It is not the speaker and identifies nobody; the labels
    in the training data are binary and its people skewed; nothing of the voice is stored.

    mmx voice2face hello.wav -o face.png -n 8 --grid

    mmx voice2face monday.wav tuesday.wav --average -o face.png
    """
    sources = expand(files.inputs, "sound")
    if averaging.average and output.output is not None and not names_a_file(output.output):
        raise UsageError("--average makes one result of all inputs", hint="give -o FILE.png")
    request = Request(
        "voice2face",
        sources,
        output=output,
        models=models,
        settings=Settings.of(sampling, averaging, excerpt, placement),
        saying=saying,
        spread=spread,
        strict=strictness.strict,
        layout="grid" if output.grid else "single",
    )
    carry_out(request)
