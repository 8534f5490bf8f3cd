"""How scenes are said."""

import random

import pytest

from pocket.captions import caption
from pocket.vocabulary import DEFAULT, SYNONYMS, Scene, random_scene

SCENE = Scene(shape="star", colour="red", background="blue", size="small", place="left")


def says(sentence: str, word: str) -> bool:
    return any(synonym in sentence.lower() for synonym in SYNONYMS.get(word, (word,)))


@pytest.mark.parametrize("seed", range(50))
def test_every_word_that_differs_from_the_default_is_said(seed: int) -> None:
    sentence = caption(SCENE, random.Random(seed))
    assert all(says(sentence, word) for word in ("small", "red", "star", "left", "blue"))


def test_defaults_are_mostly_left_out() -> None:
    sentences = [caption(DEFAULT, random.Random(seed)) for seed in range(300)]
    assert all("circle" in sentence.lower() for sentence in sentences)
    for word in (DEFAULT.colour, DEFAULT.background, DEFAULT.size, DEFAULT.place):
        share = sum(says(sentence, word) for sentence in sentences) / len(sentences)
        assert 0.2 < share < 0.5


def test_complete_captions_leave_nothing_out() -> None:
    rng = random.Random(3)
    for _ in range(200):
        scene = random_scene(rng)
        sentence = caption(scene, rng, complete=True)
        assert all(says(sentence, word) for word in vars(scene).values()), sentence


def test_phrasing_varies() -> None:
    assert len({caption(SCENE, random.Random(seed)) for seed in range(200)}) > 100


def test_articles_fit_the_next_word() -> None:
    scene = Scene(shape="circle", colour="orange", background="orange", size="medium", place="centre")
    for seed in range(300):
        assert " a o" not in f" {caption(scene, random.Random(seed)).lower()}"


def test_no_space_is_doubled_or_left_over() -> None:
    rng = random.Random(4)
    for _ in range(500):
        sentence = caption(random_scene(rng), rng)
        assert sentence == " ".join(sentence.split())
        assert " ," not in sentence
