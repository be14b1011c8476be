"""Captions from labels, and the tokenizer that is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmx.decoders.towers import END, PAD, START, TextReader

TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a {}",
    "{}",
    "a photo of the {}",
    "an image of a {}",
    "there is a {}",
    "this is a {}",
)


def words_of(meta: dict) -> list[str]:
    """The names a photo may be called by: its WordNet lemmas."""
    return [word.strip().lower() for word in meta["words"].split(",") if word.strip()]


def all_captions(metas: Sequence[dict]) -> list[str]:
    """Every caption that the photos and their concepts can give."""
    names = {word for meta in metas for word in words_of(meta)} | {
        meta["concept"] for meta in metas if meta.get("concept")
    }
    return [template.format(name) for name in sorted(names) for template in TEMPLATES]


def train_tokenizer(captions: Iterable[str], vocab_size: int = 1024, *, length: int | None = None) -> TextReader:
    """A byte-level BPE vocabulary (Sennrich et al. 2016): any text can be encoded.

    length: the tokens of the longest text. With one given, the end has the highest id, where text towers read texts.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD, START, END] if length is None else [PAD, START],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens([END])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, 1), (END, tokenizer.token_to_id(END))]
    )
    return TextReader(tokenizer) if length is None else TextReader(tokenizer, length)
