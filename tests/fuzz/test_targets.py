"""The fuzzers' oracles over their corpus and mutations of it, without a fuzzer: they hold, and they can fail."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import __main__ as fuzzer
from tests.fuzz import targets
from tests.fuzz.corpus import SEEDS
from tests.fuzz.targets import TARGETS

NAMES = sorted(TARGETS)


def mutated(seed: bytes, number: int) -> bytes:
    """A few changes, always the same ones for a number: bits, bytes, pieces left out, repeated or moved."""
    rng = random.Random(number)
    data = bytearray(seed)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            case 2:
                del data[at : at + rng.randint(1, 16)]
            case 3:
                data += data[at : at + 64]
            case 4 if at < len(data):
                data[at] = rng.choice((0, 0x7F, 0x80, 0xFF, 0x0A, 0x2F))
    return bytes(data)


def test_every_target_has_a_corpus() -> None:
    assert set(SEEDS) == set(TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_for_the_corpus(name: str) -> None:
    for seed in SEEDS[name]:
        targets.run(name, seed)


@pytest.mark.parametrize("name", NAMES)
def test_it_holds_for_mutations_of_the_corpus(name: str) -> None:
    for seed in SEEDS[name]:
        for number in range(300):
            targets.run(name, mutated(seed, number))


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(max_size=400))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_it_holds_for_any_bytes(name: str, data: bytes) -> None:
    targets.run(name, data)


def test_the_fuzzer_runs_every_target() -> None:
    assert set(fuzzer.NAMES) == set(TARGETS)
