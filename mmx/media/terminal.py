"""Pictures in a terminal: by the protocols of those that show pixels, in half blocks elsewhere."""

from __future__ import annotations

import base64
import os
import select
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby

from PIL import Image

PROTOCOLS = ("kitty", "iterm", "sixel", "blocks")
CHUNK = 4096  # bytes of base64 that kitty takes at a time
ANSWER = 0.5  # seconds that a terminal has to say what it is
SIXEL = "4"  # among the attributes that a terminal lists: it shows sixels
DEVICE = "/dev/tty"


def protocol(environment: Mapping[str, str]) -> str:
    """How the terminal of this process shows pictures, by its variables, or by what it answers when it is asked."""
    name, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if "TMUX" in environment or name.startswith(("screen", "tmux")):
        return "blocks"  # what is between here and the terminal passes no pixels on
    if "KITTY_WINDOW_ID" in environment or name in ("xterm-kitty", "xterm-ghostty") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm") or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "sixel" if "sixel" in name or _says_sixel() else "blocks"


def _says_sixel() -> bool:
    """Ask for the terminal's primary attributes (DA1) and look for sixels; who is in the background may not ask."""
    try:
        import termios
        import tty

        terminal = os.open(DEVICE, os.O_RDWR | os.O_NOCTTY)
    except (ImportError, OSError):
        return False
    try:
        if os.tcgetpgrp(terminal) != os.getpgrp():
            return False
        before = termios.tcgetattr(terminal)
        try:
            tty.setcbreak(terminal, termios.TCSANOW)
            os.write(terminal, b"\x1b[c")
            return SIXEL in _attributes(terminal)
        finally:
            termios.tcsetattr(terminal, termios.TCSANOW, before)
    except (OSError, termios.error):
        return False
    finally:
        with suppress(OSError):
            os.close(terminal)


def _attributes(terminal: int) -> list[str]:
    """What comes after CSI ? and before c, taken apart; nothing where nothing comes in time."""
    answer = b""
    while not answer.endswith(b"c") and len(answer) < 256:
        if not select.select([terminal], [], [], ANSWER)[0]:
            return []
        answer += os.read(terminal, 64)
    return answer.rpartition(b"?")[2].rstrip(b"c").decode("ascii", "replace").split(";")


def drawn(data: bytes, how: str, columns: int) -> str:
    """A PNG, `columns` characters wide, as what one of PROTOCOLS takes: control sequences to print."""
    if how == "kitty":
        return _kitty(data, columns)
    if how == "iterm":
        size = f"size={len(data)};width={columns};preserveAspectRatio=1"
        return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(data).decode()}\a"
    import io

    with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
        image = picture.convert("RGB")
    return sixels(enlarged(image, 8 * columns)) if how == "sixel" else in_terminal(image, columns)


def enlarged(image: Image.Image, width: int) -> Image.Image:
    """A picture of about a width in pixels: small ones by whole factors, so that their pixels stay what they are."""
    if image.width >= width:
        return image.resize((width, max(1, round(image.height * width / image.width))), Image.Resampling.LANCZOS)
    factor = max(1, width // image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _kitty(data: bytes, columns: int) -> str:
    """The graphics protocol of kitty: PNG (f=100), shown at once (a=T), in chunks of which all but the last say m=1."""
    text = base64.b64encode(data).decode()
    chunks = [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)]
    head, parts = f"a=T,f=100,q=2,c={columns},", []
    for number, chunk in enumerate(chunks):
        parts.append(f"\x1b_G{head}m={int(number + 1 < len(chunks))};{chunk}\x1b\\")
        head = ""
    return "".join(parts)


def sixels(image: Image.Image) -> str:
    """A picture as sixels: a palette of up to 256 colours in percent; rows of six pixels, a colour after the other."""
    small = image.quantize(256)
    palette, width = small.getpalette() or [], small.width
    used = sorted({index for _, index in small.getcolors(256) or []})
    colours = "".join(
        f"#{index};2;{';'.join(str(round(value / 2.55)) for value in palette[3 * index : 3 * index + 3])}"
        for index in used
    )
    pixels = small.tobytes()
    bands = []
    for top in range(0, small.height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, small.height))]
        bands.append("$".join(f"#{index}{_band(rows, index)}" for index in sorted(set(b"".join(rows)))))
    return f'\x1bPq"1;1;{width};{small.height}{colours}{"-".join(bands)}\x1b\\'


def _band(rows: list[bytes], index: int) -> str:
    """Up to six rows of pixels: where one colour is, a letter a column (bit k: row k); runs of four are counted."""
    columns = (63 + sum((row[x] == index) << k for k, row in enumerate(rows)) for x in range(len(rows[0])))
    runs = ((chr(code), len(list(same))) for code, same in groupby(columns))
    return "".join(f"!{count}{letter}" if count > 3 else letter * count for letter, count in runs)


def in_terminal(image: Image.Image, columns: int) -> str:
    """A picture as half blocks in 24-bit colour, `columns` characters wide."""
    rows = max(2, round(image.height * columns / image.width / 2) * 2)
    data = image.convert("RGB").resize((columns, rows), Image.Resampling.LANCZOS).tobytes()
    lines = []
    for y in range(0, rows, 2):
        upper, lower = (data[row * columns * 3 : (row + 1) * columns * 3] for row in (y, y + 1))
        cells = []
        for x in range(0, 3 * columns, 3):
            (r, g, b), (s, h, c) = upper[x : x + 3], lower[x : x + 3]
            cells.append(f"\x1b[38;2;{r};{g};{b}m\x1b[48;2;{s};{h};{c}m▀")
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)
