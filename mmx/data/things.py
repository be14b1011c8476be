"""What the photos' things are called in sentences: everyday words and hypernyms, after WordNet (Princeton), beside the
photos' own lemmas.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmx.data.captions import words_of

# a concept, or the first lemma of a synset without one → everyday words for it
EVERYDAY = {
    "dog": "puppy, pup, doggy, hound, canine, pooch, terrier, retriever, poodle, sheepdog",
    "cat": "kitten, kitty, feline, pussycat, house cat, domestic cat",
    "bird": "seabird, water bird, stork, fowl, gosling",
    "cow": "bull, cattle, calf, bovine, steer",
    "pig": "piglet, swine, boar, sow",
    "sheep": "lamb, ram, ewe, wild sheep",
    "frog": "toad, amphibian",
    "lion": "lioness, lion cub, big cat",
    "monkey": "ape, primate, great ape, gorilla",
    "bee": "honeybee, bumblebee, wasp, housefly",
    "grasshopper": "cricket, locust",
    "seashore": "beach, waves, wave, ocean, sea, shore, surf, coastline, lake",
    "rain": "umbrella, parasol, rainstorm, rainy day, canopy",
    "fire": "flame, flames, candlelight, burning candle",
    "fountain": "water fountain, water jet",
    "keyboard": "typing keyboard, computer keys",
    "stopwatch": "timer, clock, watch, timepiece",
    "lawn mower": "lawnmower, grass cutter, garden tool",
    "train": "locomotive, passenger train, railway train, railway car",
    "police van": "police car, police truck",
    "car": "automobile, motorcar, auto, sedan, motor vehicle",
    "goldfish": "fish, pet fish",
    "koala": "marsupial",
    "jellyfish": "medusa, sea creature",
    "king penguin": "penguin",
    "brown bear": "bear, grizzly, grizzly bear",
    "ladybug": "beetle",
    "monarch": "butterfly",
    "african elephant": "elephant",
    "basketball": "ball, basketball game",
    "beacon": "tower, light tower",
    "gondola": "boat, rowboat, vessel",
    "school bus": "bus, yellow bus, autobus",
    "suspension bridge": "bridge, span",
    "teapot": "kettle, tea kettle, pot",
    "teddy": "stuffed animal, plush toy, toy, toy bear",
    "ice cream": "dessert, sundae, ice cream cone",
    "orange": "citrus fruit, tangerine",
    "banana": "bunch of bananas",
    "pizza": "slice of pizza, dish",
    "alp": "mountain, mountain peak, hill",
}
_PETS, _FARM, _BUGS = ("dog", "cat", "goldfish"), ("cow", "pig", "sheep"), ("bee", "grasshopper", "ladybug", "monarch")
_WILD = ("lion", "monkey", "koala", "brown bear", "african elephant")
_FURRED = ("dog", "cat", *_FARM, *_WILD)
# words → what they stand for, as in EVERYDAY
HYPERNYMS = {
    "animal, creature, beast": (*_FURRED, *_BUGS, "bird", "frog", "goldfish", "jellyfish", "king penguin"),
    "mammal": _FURRED,
    "pet": _PETS,
    "farm animal, livestock": _FARM,
    "wild animal": _WILD,
    "insect, bug": _BUGS,
    "vehicle, motor vehicle": ("car", "police van", "school bus", "train"),
    "food, meal": ("pizza", "ice cream", "banana", "orange"),
    "fruit": ("banana", "orange"),
    "water": ("seashore", "fountain"),
    "landscape, scenery": ("seashore", "alp", "suspension bridge"),
    "building, structure": ("beacon", "suspension bridge", "fountain"),
    "machine, device": ("lawn mower", "keyboard", "stopwatch"),
}
# they mean other things in captions, too, so that a caption with one of them is of nothing certain
AMBIGUOUS = frozenset(
    (
        *("orange", "fly", "light", "bullet", "taper", "hopper", "beacon", "torch", "clock", "watch", "water", "toy"),
        *("pot", "dish", "ball", "auto", "ram", "span", "pup", "tower", "hill", "machine", "device", "food", "meal"),
        *("canopy", "wave", "waves", "fountain", "building", "structure", "alp", "hog", "tabby", "monarch"),
    )
)


def keys_of(meta: dict) -> set[str]:
    """What of the tables a photo is: its concept and its first lemma."""
    return {word for word in (meta.get("concept"), words_of(meta)[0]) if word}


def names_by_group(metas: Sequence[dict]) -> dict[frozenset[str], list[str]]:
    """Synsets → the words that stand for any photo of these and for no others."""
    own: dict[str, set[str]] = {}
    said: dict[str, set[str]] = {}
    for meta in metas:
        for key in keys_of(meta):
            own.setdefault(key, set()).add(meta["synset"])
        for word in {*words_of(meta), *keys_of(meta)} - {meta.get("concept")}:
            said.setdefault(word, set()).add(meta["synset"])
    for key, synsets in own.items():
        said[key] = said.get(key, set()) | synsets
    for words, keys in ({word: (key,) for key, word in EVERYDAY.items()} | HYPERNYMS).items():
        synsets = set().union(*(own.get(key, set()) for key in keys))
        for word in words.split(", ") if synsets else ():
            said.setdefault(word, set()).update(synsets)
    groups: dict[frozenset[str], list[str]] = {}
    for word, synsets in sorted(said.items()):
        groups.setdefault(frozenset(synsets), []).append(word)
    return groups


def plural(name: str) -> str:
    """A noun's usual plural."""
    if name.endswith(("s", "sh", "ch", "x")):
        return f"{name}es"
    return f"{name[:-1]}ies" if name.endswith("y") and name[-2:-1] not in "aeiou" else f"{name}s"
