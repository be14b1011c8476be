"""The pictures of the README, made by the starter: python assets/pictures.py"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mmx import load
from mmx.device import placed as where
from mmx.guided.caption import Guidance
from mmx.guided.captioner import Captioner
from mmx.guided.language import load_language_model
from mmx.media.audio import read_audio
from mmx.media.image import grid
from mmx.spaces.base import Space
from mmx.spaces.index import Index
from mmx.spaces.indexing import update
from mmx.spaces.load import load_space
from mmx.spaces.parts import Part
from mmx.spaces.place import draw_place, find_place
from mmx.spaces.query import parse_query
from mmx.spaces.search import find
from mmx.spaces.sheet import draw_hits
from mmx.translate.base import Blend

ASSETS = Path(__file__).parent
SEED = 8  # of all pictures of sounds but the first ones: one whose fire burns
SOUNDS = ("bark", "meow", "sea", "fire", "rain", "siren", "crickets", "typing", "bees")
SIDE, GAP, LINE = 128, 4, 16  # pixels


def captioned(caption: str, pictures: list[Image.Image], columns: int, side: int = SIDE) -> Image.Image:
    """Pictures side by side below a line of text."""
    sheet = grid([picture.resize((side, side), Image.Resampling.NEAREST) for picture in pictures], columns, GAP)
    page = Image.new("RGB", (sheet.width, sheet.height + LINE), "white")
    page.paste(sheet, (0, LINE))
    ImageDraw.Draw(page).text((2, 1), caption, "black", ImageFont.load_default(11))
    return page


def searched(draw: Any, files: dict[str, str], space: Space) -> Image.Image:
    """What `mmx search` finds for a sum among the samples and pictures of them, as its --sheet."""
    with TemporaryDirectory() as folder:
        for name, path in files.items():
            for number, picture in enumerate(draw(path, num=2)):
                picture.resize((SIDE, SIDE), Image.Resampling.NEAREST).save(Path(folder) / f"{name}-{number}.png")
        update(Path(folder) / "my.idx", space, [*map(Path, files.values()), *sorted(Path(folder).glob("*.png"))])
        query = f"{files['sea']} + 0.5*'fire'"
        hits = find(lambda: Index.open(Path(folder) / "my.idx"), space, parse_query(query), top=5)
        return draw_hits(hits, "mmx search my.idx \"sea.wav + 0.5*'fire'\" --sheet hits.png")


def placed(draw: Any, files: dict[str, str], space: Space) -> Image.Image:
    """Where `mmx localize` hears sounds in four pictures as one."""
    names = ("bark", "sea", "fire", "siren")
    four = grid([draw(files[name])[0].resize((SIDE, SIDE), Image.Resampling.LANCZOS) for name in names], 2, 0)
    shown = [draw_place(four, find_place(space, four, parse_query(files[name]))) for name in names]
    blocks = [captioned("four.png", [four], 1, four.width)]
    blocks += [
        captioned(f"localize four.png {name}.wav", [own], 1, four.width) for name, own in zip(names, shown, strict=True)
    ]
    return grid(blocks, 5, 8)


def edits(draw: Any, files: dict[str, str]) -> None:
    """Write edits.png: what `mmx edit` makes of a picture and of faces."""
    images, faces = load("edit", decoder="starter/image", device="cpu"), load("edit", device="cpu")
    dog, imagine = draw(files["bark"])[0], load("voice2face", device="cpu")
    sounds = [read_audio(files[name], sample_rate=16_000) for name in ("sea", "fire")]
    wishes: list[Any] = [*sounds, "a green picture"]
    moved = [images.translate(dog, shift=[Blend(wish)]).media[0] for wish in wishes]
    rows = {
        'dog.png, --sound sea.wav, --sound fire.wav, "a green picture"': [dog, *moved],
        'dog.png "a fire" --strip': images.translate(dog, shift=[Blend("a fire")], strip=True).media,
    }
    for voice, wish in (("low", "a woman"), ("high", "an old woman")):
        face = imagine(str(ASSETS / "samples" / "voices" / f"{voice}.wav"))[0]
        rows[f'{voice}.png "{wish}" --strip'] = faces.translate(face, shift=[Blend(wish)], strip=True).media
    grid([captioned(text, pictures, 7) for text, pictures in rows.items()], 1, 8).save(ASSETS / "edits.png")


def faces() -> Image.Image:
    """What `mmx voice2face -n 8` makes of two voices."""
    imagine, voices = load("voice2face", device="cpu"), ASSETS / "samples" / "voices"
    rows = [captioned(f"{name}.wav", imagine(str(voices / f"{name}.wav"), num=8), 8) for name in ("high", "low")]
    return grid(rows, 1, 8)


def spaces(draw: Any, files: dict[str, str]) -> None:
    """Write search.png and localize.png."""
    space = load_space(device="cpu")
    searched(draw, files, space).save(ASSETS / "search.png")
    placed(draw, files, space).save(ASSETS / "localize.png")


def captions(draw: Any, files: dict[str, str]) -> Image.Image:
    """What `mmx caption` says of sounds, and of the pictures that the starter draws of them."""
    captioner = Captioner(load_space(device="cpu"), load_language_model(None, where("cpu", "auto")), Guidance())
    cells = []
    for name, path in files.items():
        picture = draw(path)[0]
        seen = captioner.captions(captioner.compass.direction([Part("image", picture)])[None], "Image of a")
        heard = captioner.captions(captioner.compass.query(parse_query(path))[None], "The sound of a")
        lines = [f"{name}.wav:", *wrap(heard[0][0].text, 34), "", "its picture:", *wrap(seen[0][0].text, 34)]
        page = Image.new("RGB", (SIDE + 216, SIDE), "white")
        page.paste(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST), (0, 0))
        font = ImageFont.load_default(11)
        ImageDraw.Draw(page).multiline_text((SIDE + 8, 2), "\n".join(lines), "black", font, spacing=2)
        cells.append(page)
    return grid(cells, 3, 8)


def main() -> None:
    """Write readme.png by the default seed; controls.png, search.png, localize.png, captions.png, edits.png and
    faces.png."""
    sounds = load("sound2img", device="cpu")
    draw = partial(sounds, seed=SEED)
    files = {name: str(ASSETS / "samples" / f"{name}.wav") for name in SOUNDS}
    spaces(draw, files)
    captions(draw, files).save(ASSETS / "captions.png")
    edits(draw, files)
    faces().save(ASSETS / "faces.png")
    blocks = [captioned(f"{name}.wav", sounds(path, num=4), 2) for name, path in files.items()]
    grid(blocks, 3, 8).save(ASSETS / "readme.png")
    sea, fire, steps = files["sea"], files["fire"], [k / 7 for k in range(8)]
    picture = draw(files["siren"])[0]
    rows = {
        "sea.wav --interpolate fire.wav": draw(sea, interpolate=fire, frames=8),
        "sea.wav --mix crickets.wav:0 ... 0.9": [
            draw(sea, mix=[(files["crickets"], 0.9 * k)])[0] if k else draw(sea)[0] for k in steps
        ],
        "first a picture; fire.wav --image PICTURE:0.9 ... 0": [
            picture,
            *(draw(fire, image=(picture, 0.9 * (1 - k / 6)))[0] for k in range(7)),
        ],
        "sea.wav --mix fire.wav:0.5 --gain -24 ... 24": [
            draw(sea, mix=[(fire, 0.5)], gain=48 * k - 24)[0] for k in steps
        ],
    }
    rows = {f"{text} --seed {SEED}": pictures for text, pictures in rows.items()}
    grid([captioned(text, pictures, 8) for text, pictures in rows.items()], 1, 8).save(ASSETS / "controls.png")


if __name__ == "__main__":
    main()
