"""Pictures one after the other as GIF and MP4, with a comment in the file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from PIL import Image

COLOURS = 255  # of a GIF's one palette
BLOCK = 16  # pixels a side of H.264's macroblocks


def gif_bytes(frames: Sequence[Image.Image], seconds: float, comment: str) -> bytes:
    """An animation that goes on for ever, of one palette so that nothing flickers. seconds: each frame is shown."""
    width, height = frames[0].size
    together = Image.new("RGB", (width, height * len(frames)))
    for number, frame in enumerate(frames):
        together.paste(frame, (0, number * height))
    palette = together.quantize(COLOURS, Image.Quantize.MEDIANCUT)
    own = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    options = {"save_all": True, "append_images": own[1:], "duration": round(1000 * seconds), "loop": 0}
    own[0].save(buffer, format="GIF", comment=comment.encode("utf8"), **options)
    return buffer.getvalue()


def mp4_bytes(frames: Sequence[Image.Image], seconds: float, comment: str) -> bytes:
    """H.264 in MP4, by one thread so that equal frames give equal bytes. Sides are made even."""
    import av

    buffer, rate = io.BytesIO(), Fraction(1 / seconds).limit_denominator(1000)
    with av.open(buffer, "w", format="mp4", options={"movflags": "use_metadata_tags", "fflags": "+bitexact"}) as out:
        out.metadata["comment"] = comment
        width, height = (side - side % 2 for side in frames[0].size)
        options = {"crf": "18", "threads": "1"}
        if width % BLOCK or height % BLOCK:  # beyond such an edge x264's look ahead reads what nobody wrote
            options["x264-params"] = "mbtree=0"
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            pixels = np.asarray(frame.crop((0, 0, width, height)))
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        out.mux(stream.encode())
    return buffer.getvalue()


def mp4_comment(data: bytes) -> str | None:
    """The comment in an MP4's bytes; None where there is none, or it is no MP4."""
    import av

    try:
        with av.open(io.BytesIO(data), format="mp4") as found:
            return found.metadata.get("comment")
    except (av.FFmpegError, ValueError):
        return None
