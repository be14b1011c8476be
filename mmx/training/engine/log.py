"""What a run leaves to look at: log.jsonl, curves.png, JSON events on stdout, TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, MARGIN = 900, 260, 44  # pixels of one panel
INK, LINE, GRID = (40, 40, 40), (196, 78, 32), (225, 225, 225)


class Log:
    """Writes what a run measures, as it is measured."""

    def __init__(self, name: str, folder: Path, *, events: bool = False, tensorboard: bool = False) -> None:
        self.name, self.folder, self.events, self.writer = name, folder, events, None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder / "tensorboard"))

    def trained(self, step: int, parts: dict[str, float], rate: float) -> None:
        """The parts of a step's loss, and samples a second."""
        self._write(
            "step",
            step,
            {key: round(value, 5) for key, value in parts.items()} | {"samples_per_second": round(rate, 1)},
        )

    def validated(self, step: int, metrics: dict[str, float]) -> None:
        """Val's metrics; also draws the curves anew."""
        self._write("val", step, metrics)
        draw_curves(self.folder / "log.jsonl", self.folder / "curves.png")

    def _write(self, kind: str, step: int, values: dict[str, float]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        record: dict[str, Any] = {"step": step} | ({"val": values} if kind == "val" else values)
        with (self.folder / "log.jsonl").open("a", encoding="utf8") as file:
            file.write(json.dumps(record) + "\n")
        if self.events:
            print(
                json.dumps({"schema": "mmx.event/1", "event": kind, "stage": self.name, "step": step} | values),
                flush=True,
            )
        if self.writer is not None:
            for key, value in values.items():
                self.writer.add_scalar(f"{self.name}/{key}", value, step)
            self.writer.flush()


def draw_curves(log: Path, path: Path) -> None:
    """The loss and every metric of val over the steps, a panel each, as one PNG."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in log.read_text(encoding="utf8").splitlines():
        record = json.loads(line)
        values = record["val"] if "val" in record else {"loss": record["loss"]}
        for key, value in values.items():
            curves.setdefault(key, []).append((record["step"], value))
    curves = {key: sorted(dict(points).items()) for key, points in curves.items()}  # a resumed run repeats some steps
    if not curves:
        return
    sheet = Image.new("RGB", (WIDTH, HEIGHT * len(curves)), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for row, (name, points) in enumerate(curves.items()):
        _panel(pen, font, row * HEIGHT, name, points)
    sheet.save(path)


def _panel(pen: ImageDraw.ImageDraw, font: Any, top: int, name: str, points: list[tuple[int, float]]) -> None:
    finite = [value for _, value in points if value == value and abs(value) != float("inf")]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    last = max(points[-1][0], 1)
    span = (high - low) or 1.0

    def place(step: int, value: float) -> tuple[float, float]:
        x = MARGIN + (WIDTH - 2 * MARGIN) * step / last
        return x, top + HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (value - low) / span

    for value in (low, (low + high) / 2, high):
        y = place(0, value)[1]
        pen.line((MARGIN, y, WIDTH - MARGIN, y), fill=GRID)
        pen.text((4, y - 8), f"{value:.3g}", fill=INK, font=font)
    pen.text((MARGIN, top + 10), f"{name}: {points[-1][1]:.4g} at step {points[-1][0]}", fill=INK, font=font)
    drawn = [place(step, value) for step, value in points if value == value and abs(value) != float("inf")]
    if len(drawn) > 1:
        pen.line(drawn, fill=LINE, width=2)
    for x, y in drawn if len(drawn) < 60 else ():
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=LINE)
