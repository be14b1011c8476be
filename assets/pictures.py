"""The pictures of the README, made by the starter: python assets/pictures.py"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mmx import load
from mmx.media.image import grid

ASSETS = Path(__file__).parent
SOUNDS = ("bark", "meow", "sea", "fire", "rain", "siren", "crickets", "typing", "bees")
SIDE, GAP, LINE = 128, 4, 16  # pixels


def captioned(caption: str, pictures: list[Image.Image], columns: int) -> Image.Image:
    """Pictures side by side below a line of text."""
    sheet = grid([picture.resize((SIDE, SIDE), Image.Resampling.NEAREST) for picture in pictures], columns, GAP)
    page = Image.new("RGB", (sheet.width, sheet.height + LINE), "white")
    page.paste(sheet, (0, LINE))
    ImageDraw.Draw(page).text((2, 1), caption, "black", ImageFont.load_default(11))
    return page


def main() -> None:
    """Write readme.png and controls.png."""
    draw = load("sound2img", device="cpu")
    files = {name: str(ASSETS / "samples" / f"{name}.wav") for name in SOUNDS}
    blocks = [captioned(f"{name}.wav", draw(path, num=4), 2) for name, path in files.items()]
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
    grid([captioned(text, pictures, 8) for text, pictures in rows.items()], 1, 8).save(ASSETS / "controls.png")


if __name__ == "__main__":
    main()
