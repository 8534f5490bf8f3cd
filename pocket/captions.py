"""How people say a scene: word orders, synonyms, and words left out where the scene has the default."""

from __future__ import annotations

import random

from pocket.vocabulary import DEFAULT, SYNONYMS, Scene

_OPENINGS = ("", "", "", "", "a picture of ", "a drawing of ", "a photo of ", "an image of ", "there is ", "draw ")
_AT = ("at the {}", "at the {}", "on the {}", "to the {}", "in the {}", "{}")
_AT_CORNER = ("at the {}", "in the {}", "in the {} corner", "{} corner", "{}")
_AT_CENTRE = ("in the {}", "at the {}", "{}")
_ON = ("on a {} background", "on a {} background", "on {}", "with a {} background", "against a {} background")
_ORDERS = (
    "{thing} {place} {ground}",
    "{thing} {place} {ground}",
    "{thing} {place} {ground}",
    "{thing} {ground} {place}",
    "{ground} {thing} {place}",
    "{place} {ground} {thing}",
    "{place} {thing} {ground}",
)


def caption(scene: Scene, rng: random.Random, complete: bool = False) -> str:
    """One way to say ``scene``.

    A word that equals the default (:data:`pocket.vocabulary.DEFAULT`) is often left out, unless ``complete``.
    """
    if rng.random() < 0.12:
        return _keywords(scene, rng, complete)
    opening = rng.choice(_OPENINGS)
    parts = {
        "thing": opening + _article(_thing(scene, rng, complete), rng),
        "place": _place(scene, rng, complete),
        "ground": _ground(scene, rng, complete),
    }
    return _finish(rng.choice(_ORDERS).format(**parts), rng)


def _keywords(scene: Scene, rng: random.Random, complete: bool) -> str:
    """The terse form: ``small red star, left, blue background``."""
    place = _said(scene.place, DEFAULT.place, rng, complete)
    ground = _said(scene.background, DEFAULT.background, rng, complete)
    parts = [_thing(scene, rng, complete), place, ground and f"{ground} background"]
    return ", ".join(part for part in parts if part)


def _thing(scene: Scene, rng: random.Random, complete: bool) -> str:
    size = _said(scene.size, DEFAULT.size, rng, complete)
    colour = _said(scene.colour, DEFAULT.colour, rng, complete)
    return " ".join(word for word in (size, colour, rng.choice(SYNONYMS.get(scene.shape, (scene.shape,)))) if word)


def _place(scene: Scene, rng: random.Random, complete: bool) -> str:
    word = _said(scene.place, DEFAULT.place, rng, complete)
    if not word:
        return ""
    forms = _AT_CENTRE if scene.place == "centre" else _AT_CORNER if " " in scene.place else _AT
    return rng.choice(forms).format(word)


def _ground(scene: Scene, rng: random.Random, complete: bool) -> str:
    word = _said(scene.background, DEFAULT.background, rng, complete)
    return _an(rng.choice(_ON).format(word)) if word else ""


def _said(word: str, default: str, rng: random.Random, complete: bool) -> str:
    """A synonym of ``word``, or nothing where the default is meant and two times in three goes without saying."""
    if word == default and not complete and rng.random() < 0.67:
        return ""
    return rng.choice(SYNONYMS.get(word, (word,)))


def _article(words: str, rng: random.Random) -> str:
    article = rng.choice(("a ", "a ", "a ", "the ", "one ", ""))
    return _an(article + words)


def _an(words: str) -> str:
    for vowel in "aeiou":
        words = words.replace(f" a {vowel}", f" an {vowel}")
    return "an " + words[2:] if words.startswith("a ") and words[2:3] in "aeiou" else words


def _finish(sentence: str, rng: random.Random) -> str:
    sentence = " ".join(sentence.split())
    if rng.random() < 0.2:
        sentence = sentence[0].upper() + sentence[1:]
    return sentence + ("." if rng.random() < 0.15 else "")
