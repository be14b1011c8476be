"""Which decoder lies in a folder: the file that its format is known by, and the class that reads it."""

from __future__ import annotations

from safetensors import SafetensorError

from mmx.decoders.base import Decoder
from mmx.device import out_of_memory
from mmx.errors import ModelError
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
# what its parts raise of a file that is cut, or that does not say what they need
UNREADABLE = (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError, OSError, SafetensorError)


def load_decoder(at: Located, modality: str) -> Decoder:
    """A decoder's folder, ours or a full-size model in its own format, on the CPU. modality: of what it decodes to, a
    key of FORMATS.

    Raises ModelError.
    """
    known = FORMATS[modality]
    kind = next((kind for file, kind in known if (at.folder / file).exists()), dict(known)["mmx.json"])
    try:
        return find(kind).load(at)
    except UNREADABLE as error:
        if out_of_memory(error):
            raise
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ModelError(f"{at.folder}: the decoder can't be read: {said}", hint="copy or fetch it again") from None
