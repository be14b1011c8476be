"""Pairs of words that stand to each other as others do, of what captions of photos and sounds speak of."""

from __future__ import annotations

from collections.abc import Container
from itertools import permutations

RELATIONS: dict[str, str] = {
    "gender": "man:woman men:women boy:girl boys:girls he:she his:her male:female guy:lady",
    "plural": "dog:dogs cat:cats cow:cows horse:horses duck:ducks goat:goats pig:pigs bird:birds frog:frogs bee:bees "
    "car:cars boat:boats train:trains bus:buses plane:planes truck:trucks motorcycle:motorcycles bicycle:bicycles "
    "man:men woman:women boy:boys child:children person:people kid:kids leaf:leaves chair:chairs tree:trees",
    "young": "dog:puppy cat:kitten cow:calf dogs:puppies cats:kittens",
    "verb form": "sits:sitting stands:standing walks:walking runs:running rides:riding plays:playing eats:eating "
    "sleeps:sleeping flies:flying speaks:speaking talks:talking laughs:laughing cries:crying sings:singing "
    "barks:barking meows:meowing oinks:oinking quacks:quacking snores:snoring sneezes:sneezing",
    "voice": "dog:barking cat:meowing pig:oinking duck:quacking bird:chirping bee:buzzing frog:croaking sheep:bleating "
    "rooster:crowing snake:hissing pigeon:cooing horse:neighing man:speaking baby:crying",
    "gear": "skateboarder:skateboard surfer:surfboard skier:skis snowboarder:snowboard baseball:bat tennis:racket",
    "way": "train:tracks plane:runway boat:water car:road bus:street",
    "degree": "loud:louder quiet:quieter fast:faster slow:slower small:smaller large:larger close:closer",
}


def questions(known: Container[str]) -> dict[str, list[tuple[str, str, str, str]]]:
    """Of each relation, (a, b, c, d): a is to b as c is to d; of any two of its pairs whose words are all known."""
    found = {}
    for name, text in RELATIONS.items():
        pairs = [tuple(pair.split(":")) for pair in text.split()]
        pairs = [(a, b) for a, b in pairs if a in known and b in known]
        found[name] = [(*first, *second) for first, second in permutations(pairs, 2) if len({*first, *second}) == 4]
    return found
