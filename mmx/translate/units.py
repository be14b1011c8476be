"""Any source → speech, by a bridge that writes units."""

from __future__ import annotations

from typing import Any

from mmx.bridges.units import UnitBridge
from mmx.translate.any_source import READERS
from mmx.translate.base import Excerpt, Translation, Translator
from mmx.translate.img2speech import ImageTranslator


class UnitTranslator(ImageTranslator):
    """Turns a source into speech, whatever the bridge takes."""

    bridge_kind = UnitBridge

    def _read(self, source: Any, name: str | None, excerpt: Excerpt) -> Any:
        """What bridges from this source take. Raises InputError."""
        return READERS[self.bridge.config.sources[0]](source, name, excerpt)

    def notes(self, name: str, medium: Any) -> list[str]:
        return Translator.notes(self, name, medium)

    def translate(self, medium: Any, **options: Any) -> Translation:
        """One medium → an utterance for each of `indices`, as of a picture."""
        return super().translate(medium if isinstance(medium, list) else [medium], **options)
