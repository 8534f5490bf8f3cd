"""The system's clock is wrong for a while, ahead or behind: tokens say so, nothing crashes, and all is well after."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from authsvc.domain import api_keys
from schemas import defaults
from schemas.tokens import TokenClaims
from tests.authsvc.conftest import APP, Served, serving
from tests.faults.load import WITHOUT_LIMITS, minting
from tests.faults.test_stores_away import unharmed
from tests.processes import run_module
from tests.servers import missing
from tests.stores import Store
from tokens.errors import TokenError
from tokens.keys import parse_jwks
from tokens.verify import verify

HOUR_S = 3600
DAY_S = 24 * HOUR_S


class WrongClock:
    """How far the clock of the processes with this environment is off; they notice at once."""

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "clock"
        self.off_by(0)
        self.env = {"LD_PRELOAD": str(library), "WRONG_CLOCK_FILE": str(self._file)}

    def off_by(self, seconds: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or missing("there is no C compiler (Debian: apt-get install gcc libc6-dev)")
    built = tmp_path_factory.mktemp("clock") / "wrong_clock.so"
    source = Path(__file__).with_name("wrong_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(source)], check=True)
    return built


@pytest.fixture
def clock(tmp_path: Path, library: Path) -> WrongClock:
    return WrongClock(tmp_path, library)


@pytest.fixture
def served(clock: WrongClock, store: Store) -> Iterator[Served]:
    with serving(store, {**WITHOUT_LIMITS, **clock.env}) as served:
        yield served


def mint(served: Served, key: str) -> httpx.Response:
    return httpx.post(f"{served.url}/tokens/", json={"app": APP}, headers={"Authorization": f"Key {key}"})


def check(served: Served, token: str, off_by: int = 0) -> TokenClaims:
    """Verifies as a runner does whose clock is off by so much."""
    keys = parse_jwks(httpx.get(f"{served.url}/.well-known/jwks.json").content)
    return verify(token, keys, issuer=defaults.ISSUER, audience=defaults.AUDIENCE, now=time.time() + off_by)


def refused(served: Served, token: str, off_by: int = 0) -> str:
    with pytest.raises(TokenError) as error:
        check(served, token, off_by)
    return error.value.code


def test_a_clock_that_jumps_makes_tokens_of_its_time_and_harms_nothing(clock: WrongClock, served: Served) -> None:
    with unharmed(served.process), minting(served.url, served.key) as load:
        before = mint(served, served.key).json()
        check(served, before)
        for wrong in (2 * HOUR_S, -2 * HOUR_S, 400 * DAY_S, -400 * DAY_S):
            clock.off_by(wrong)
            load.wait_for(201)
            token = mint(served, served.key).json()
            assert check(served, token, wrong).iat == pytest.approx(time.time() + wrong, abs=HOUR_S)
            assert refused(served, token) == ("token_not_yet_valid" if wrong > 0 else "expired_token")
            clock.off_by(0)
            load.wait_for(201)
            check(served, before)
            check(served, mint(served, served.key).json())
        assert httpx.get(f"{served.url}/health/ready").status_code == 200
    assert {answer and answer.status_code for answer in load.answers} == {201}


def test_a_rotation_by_a_wrong_clock_is_good_when_the_clock_is_right_again(clock: WrongClock, served: Served) -> None:
    old = mint(served, served.key).json()
    for wrong in (2 * HOUR_S, -2 * HOUR_S):
        clock.off_by(wrong)
        rotated = run_module("authsvc", "signing-keys", "rotate", env={**served.env, **clock.env})
        assert rotated.returncode == 0, rotated.stderr
        clock.off_by(0)
        check(served, mint(served, served.key).json())
        check(served, old)


def test_a_key_that_expires_and_a_quota_of_a_day_go_by_the_clock(clock: WrongClock, served: Served) -> None:
    noon = (int(time.time()) // DAY_S + 1) * DAY_S + DAY_S // 2 - int(time.time())
    with served.writing() as session:
        _, expiring = api_keys.create(session, apps=[APP], expires_at=int(time.time()) + DAY_S * 5, now=time.time())
        _, counted = api_keys.create(session, apps=[APP], daily_quota=1, now=time.time())
    clock.off_by(noon)
    assert [mint(served, str(counted)).status_code for _ in range(2)] == [201, 429]
    clock.off_by(noon + DAY_S)
    assert [mint(served, str(counted)).status_code for _ in range(2)] == [201, 429]
    clock.off_by(noon)
    assert mint(served, str(counted)).status_code == 429, "a day that was used up does not come again"
    assert mint(served, str(expiring)).status_code == 201
    clock.off_by(noon + 10 * DAY_S)
    assert mint(served, str(expiring)).status_code == 401
    clock.off_by(noon)
    assert mint(served, str(expiring)).status_code == 201
