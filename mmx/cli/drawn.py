"""What `mmx show` draws: a table from kinds of files to pictures, and what is said of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mmx.errors import InputError, NotAPictureError, UsageError
from mmx.media.files import Source, kind_of_file
from mmx.media.formats import MESHES

if TYPE_CHECKING:
    from PIL import Image

ARRAYS = (".safetensors", ".npy", ".npz", ".csv")


@dataclass(frozen=True)
class How:
    """How a sound is drawn, as of `mmx.media.show.View`, and whether a mesh turns."""

    window: str = "hann"
    scale: str = "mel"
    fft: int = 1024
    hop: int = 256
    turns: bool = False


@dataclass(frozen=True)
class Drawing:
    """A picture, several of a turntable, and lines about what they show."""

    pictures: list[Image.Image]
    lines: tuple[str, ...] = ()
    seconds: float = 0.0  # that each of several is shown

    @property
    def picture(self) -> Image.Image:
        return self.pictures[0]

    @cached_property
    def payload(self) -> bytes:
        """As a PNG or, of several, a GIF."""
        if self.seconds:
            from mmx.media.animation import gif_bytes

            return gif_bytes(self.pictures, self.seconds, "")
        from mmx.media.image import png_bytes

        return png_bytes(self.picture)


def draw(data: bytes, source: Source, how: How) -> Drawing:
    """A file's content as what it looks like. Raises InputError, and UsageError where only a mesh could turn."""
    for kind in _kinds(data, source):
        drawing = DRAWERS[kind](data, source.name, how)
        if drawing is not None:
            if how.turns and not drawing.seconds:
                raise UsageError("only a mesh turns: of all else a PNG is drawn", hint="give a name that ends in .png")
            return drawing
    raise AssertionError("the last of the kinds draws or raises")


def _kinds(data: bytes, source: Source) -> Iterator[str]:
    """What a file may hold, by its suffix or else by how it begins, most likely first."""
    from mmx.media.arrays import NPY

    suffix = source.suffix.lower()
    if data.startswith(NPY) or suffix in ARRAYS:
        yield "array"
    elif suffix in MESHES:
        yield "mesh"
    else:
        known = kind_of_file(Path(source.name)) if suffix else None
        yield from {"video": ("clip",), "sound": ()}.get(known or "", ("image",))
        yield from () if known else ("unnamed mesh", "clip")
        yield "sound"


def _array(data: bytes, name: str, how: How) -> Drawing:
    from mmx.media.tensors import draw_array, read_tensors

    arrays = read_tensors(data, name)
    if not arrays:
        raise InputError(f"{name}: it holds no array")
    return Drawing([draw_array(arrays[0])], tuple(array.line() for array in arrays))


def _mesh(data: bytes, name: str, how: How) -> Drawing:
    from mmx.guided.turntable import SECONDS, SHEET, TURN, turned
    from mmx.media.image import grid
    from mmx.media.mesh import read_mesh
    from mmx.media.mesh_look import facts, read_colours

    mesh = read_mesh(data, name)
    colours = read_colours(data, name, mesh.frames.shape[1])
    views = turned(mesh, colours, TURN if how.turns else SHEET)
    lines = tuple(facts(mesh))
    return Drawing(views, lines, SECONDS) if how.turns else Drawing([grid(views, SHEET // 2)], lines)


def _unnamed_mesh(data: bytes, name: str, how: How) -> Drawing | None:
    from mmx.media.mesh import kind_of_mesh

    try:
        kind_of_mesh(data, name)
    except InputError:
        return None
    return _mesh(data, name, how)


def _clip(data: bytes, name: str, how: How) -> Drawing | None:
    from mmx.media.clip import draw_clip, read_clip, stacked

    try:
        clip = read_clip(data, name)
    except InputError:
        clip = None
    if clip is None:
        return None
    picture, lines = draw_clip(clip), tuple(clip.facts())
    try:
        heard = _sound(data, name, how)
    except InputError:
        return Drawing([picture], lines)
    return Drawing([stacked(picture, heard.picture)], lines + heard.lines)


def _image(data: bytes, name: str, how: How) -> Drawing | None:
    from mmx.media.image import read_image
    from mmx.media.notes import notes_of
    from mmx.media.show import draw_picture

    try:
        picture = read_image(data, name=name)
    except NotAPictureError:
        return None
    return Drawing([draw_picture(picture)], tuple(f"{name}: {note}" for note in notes_of(picture)))


def _sound(data: bytes, name: str, how: How) -> Drawing:
    from mmx.media.audio import read_audio
    from mmx.media.notes import notes_of
    from mmx.media.show import View, draw_sound

    wave = read_audio(data, sample_rate=None, name=name)
    drawn = draw_sound(wave, View(how.window, how.scale, how.fft, how.hop))
    return Drawing([drawn], tuple(f"{name}: {note}" for note in notes_of(wave)))


DRAWERS: dict[str, Callable[[bytes, str, How], Drawing | None]] = {
    "array": _array,
    "mesh": _mesh,
    "unnamed mesh": _unnamed_mesh,
    "clip": _clip,
    "image": _image,
    "sound": _sound,
}
