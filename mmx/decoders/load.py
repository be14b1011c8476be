"""Which decoder lies in a folder: the file that its format is known by, and the class that reads it."""

from __future__ import annotations

from mmx.decoders.base import Decoder
from mmx.models.store import Located
from mmx.tasks import find

# what is decoded → (a file in the folder, the class that reads such a folder), ours first
FORMATS = {
    "image": (
        ("generator.safetensors", "mmx.decoders.gan:GanDecoder"),
        ("mmx.json", "mmx.decoders.unclip:ImageDecoder"),
        ("model_index.json", "mmx.decoders.pretrained:HubDecoder"),
    ),
    "sound": (
        ("mmx.json", "mmx.decoders.speech:SpeechDecoder"),
        ("config.json", "mmx.decoders.unit_vocoder:UnitVocoder"),
    ),
}


def load_decoder(at: Located, modality: str) -> Decoder:
    """A decoder's folder, ours or a full-size model in its own format, on the CPU. modality: of what it decodes to, a
    key of FORMATS.

    Raises ModelError.
    """
    known = FORMATS[modality]
    kind = next((kind for file, kind in known if (at.folder / file).exists()), dict(known)["mmx.json"])
    return find(kind).load(at)
