"""What a text says of a face. Imports nothing heavy.

Of faces only age and gender are labelled, so a text is read for these two, and another word is refused. Light and dark
are left out on purpose: in a face's feature they can't be told from the colour of a skin.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mmx.errors import InputError

YOUNGEST, OLDEST = 18, 90
BY_GENDER = {
    "female": ("woman", "women", "female", "lady", "feminine", "she", "her", "grandmother"),
    "male": ("man", "men", "male", "gentleman", "masculine", "he", "him", "his", "guy", "grandfather"),
}
BY_AGE = {
    22.0: ("young", "younger", "youthful"),
    45.0: ("middle-aged",),
    72.0: ("old", "older", "elderly", "aged", "senior", "grandmother", "grandfather"),
}
FILLERS = """a an and at face image in is look looking looks make making more of person photo photograph picture
portrait someone that the their this very who with"""
SAY_NOTHING = frozenset(FILLERS.split())
YEARS = re.compile(r"\b(?:aged?\s+)?(\d+)[\s-]*(?:years?[\s-]*old|year[\s-]olds?|years?|y/?o)\b|\baged?\s+(\d+)\b")
DECADE = re.compile(r"\bin\s+(?:his|her|their)\s+(\d)0s\b")
HINT = (
    f'such as "an old woman" or "a 30 year old man": young, middle-aged, old, ages {YOUNGEST} to {OLDEST}, man, woman'
)


@dataclass(frozen=True)
class Said:
    """What a text says of a face; None where it says nothing. age in years, gender female or male."""

    age: float | None = None
    gender: str | None = None


def said(text: str) -> Said:
    """A text → what it says. Raises InputError for a word that stands for nothing here, and for a text without any."""
    lowered = text.lower().replace("middle aged", "middle-aged")
    ages = [float(a or b) for a, b in YEARS.findall(lowered)] + [float(d) * 10 + 5 for d in DECADE.findall(lowered)]
    rest = DECADE.sub(" ", YEARS.sub(" ", lowered))
    genders = []
    for word in re.findall(r"[\w-]+", rest):
        own_ages = [age for age, words in BY_AGE.items() if word in words]
        own_genders = [gender for gender, words in BY_GENDER.items() if word in words]
        if not own_ages and not own_genders and word not in SAY_NOTHING:
            raise InputError(f"{text}: the face decoder knows nothing of {word!r}", hint=HINT)
        ages, genders = ages + own_ages, genders + own_genders
    if len({*genders}) > 1 or len({*ages}) > 1:
        raise InputError(f"{text}: that is two faces", hint=HINT)
    if ages and not YOUNGEST <= ages[0] <= OLDEST:
        raise InputError(f"{text}: the faces are of adults, {YOUNGEST} to {OLDEST}", hint=HINT)
    if not ages and not genders:
        raise InputError(f"{text}: it says nothing of a face that this decoder knows", hint=HINT)
    return Said(ages[0] if ages else None, genders[0] if genders else None)
