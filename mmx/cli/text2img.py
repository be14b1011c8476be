"""`mmx text2img`."""

from __future__ import annotations

from mmx.cli.preview import Showing
from mmx.cli.takes import takes
from mmx.cli.translate import Request, carry_out
from mmx.errors import UsageError
from mmx.media.files import texts
from mmx.network import Spread
from mmx.options import BridgeAndDecoder, Pictures, Placement, Settings, SizedSampling, Texts


@takes
def text2img(
    given: Texts,
    output: Pictures,
    sampling: SizedSampling,
    models: BridgeAndDecoder,
    placement: Placement,
    spread: Spread,
    saying: Showing,
) -> None:
    """Turn texts into pictures, by the same prior and decoder that sounds drive. The starter knows 21 things.

    mmx text2img "a photo of a seashore" -o sea.png -n 4 --grid

    mmx text2img "a red fox in the snow" --decoder kandinsky-2.2 -o fox.png
    """
    if output.output is not None and output.output.lower().endswith(".gif"):
        raise UsageError("a text makes no animation", hint="write .png")
    request = Request(
        "text2img",
        texts(given.texts),
        output=output,
        models=models,
        settings=Settings.of(sampling, placement),
        saying=saying,
        spread=spread,
        layout="grid" if output.grid else "single",
    )
    carry_out(request)
