"""What an exception says when it is printed with its traceback: never a piece of what it is about."""

import contextlib
import traceback
from pathlib import Path

import pytest

from authsvc.domain import api_keys
from authsvc.domain.issuing import Issued
from authsvc.installation import open_database
from authsvc.settings import Settings
from schemas.tokens import PinnedLimits
from tests.leaks.hunt import Hunt
from tests.security.forging import Forger
from tests.tokens.conftest import AUDIENCE, ISSUER, NOW
from tokens.errors import InvalidKey, TokenError
from tokens.keys import SigningKey
from tokens.verify import verify

FORGERIES = 3000


@pytest.fixture
def hunt() -> Hunt:
    return Hunt(Path("nowhere"))


def test_no_refused_token_is_in_the_traceback_of_its_refusal(hunt: Hunt) -> None:
    forger = Forger(seed=4)
    hunt.learn(token.rpartition(".")[2] for token in forger.good)
    for family, forged in forger.forgeries(FORGERIES):
        with contextlib.suppress(UnicodeError):
            hunt_for_this = Hunt(Path("nowhere"))
            hunt_for_this.learn(forged.split("."))
            try:
                verify(forged, forger.desk.keys, issuer=ISSUER, audience=AUDIENCE, now=NOW)
            except TokenError as error:
                text = "".join(traceback.format_exception(error))
                for known in (hunt, hunt_for_this):
                    known.search(f"the traceback of a token {family}", text)


@pytest.mark.parametrize("damage", [lambda pem: pem[:-40], lambda pem: pem[10:], lambda pem: pem.swapcase()])
def test_no_private_key_is_in_the_traceback_of_a_damaged_one(hunt: Hunt, damage) -> None:
    pem = SigningKey.generate().to_pem()
    hunt.learn([pem.decode().split("\n")[1][22:]])
    with pytest.raises(InvalidKey) as refused:
        SigningKey.from_pem(damage(pem))
    hunt.search("the traceback of a damaged key", "".join(traceback.format_exception(refused.value)))


def test_what_a_debugger_or_an_assertion_shows_of_an_object_is_no_secret(hunt: Hunt, tmp_path: Path) -> None:
    forger = Forger(seed=5)
    token = forger.good[0]
    claims = verify(token, forger.desk.keys, issuer=ISSUER, audience=AUDIENCE, now=NOW)
    with open_database(Settings(data_dir=tmp_path)) as database, database.writing() as session:
        key, credential = api_keys.create(session, name="x", apps=["*"], now=NOW)
    hunt.learn([token.rpartition(".")[2], credential.secret])
    assert hunt.find(str(credential))
    for shown in (Issued(token, claims, PinnedLimits()), credential, key, api_keys.described(key), claims):
        hunt.search("a repr", repr(shown))
