"""Revocation across processes: what one service is told, every runner does, whoever was restarted in between."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests import stores
from tests.fleet import APP, Fleet, knock, running_fleet
from tests.processes import Process, run_module
from tests.stores import Store

WITHIN_S = 30
REVOKED = ([("UNAUTHORIZED", "the token was revoked")], 4001)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def fleet(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Fleet]:
    """Two services on one store, SQLite alone or PostgreSQL and Redis, and two runners."""
    folder = tmp_path_factory.mktemp("store")
    with ExitStack() as exits:
        urls = {}
        if request.param == "postgres":
            redis_url = exits.enter_context(stores.redis_database(folder))
            server = exits.enter_context(stores.postgres())
            urls = {"database_url": exits.enter_context(server.database()), "redis_url": redis_url}
        yield exits.enter_context(running_fleet(Store(folder, urls).env, bundle, size=2))


@pytest.fixture
def small_fleet(tmp_path: Path, bundle: Path) -> Iterator[Fleet]:
    """One of each, for a test to stop and start."""
    with running_fleet(Store(tmp_path, {}).env, bundle, size=1) as started:
        yield started


def ask(socket: ClientConnection) -> dict[str, Any]:
    socket.send(msgpack.packb({"prompt": "x"}))
    answer = socket.recv(timeout=WITHIN_S)
    assert isinstance(answer, bytes), answer
    result: dict[str, Any] = msgpack.unpackb(answer)
    return result


def last_words(socket: ClientConnection) -> tuple[list[tuple[str, str]], int | None]:
    """What a socket says until it is closed, pictures left out, and the code of the close."""
    said = []
    try:
        while True:
            message = socket.recv(timeout=WITHIN_S)
            if isinstance(message, str):
                error = json.loads(message)
                said.append((error["error"], error["reason"]))
    except ConnectionClosed:
        return said, socket.protocol.close_code


def refusal(runner: Process, token: str) -> tuple[list[tuple[str, str]], int | None]:
    with knock(runner, token) as socket:
        return last_words(socket)


@pytest.mark.parametrize("named", ["token", "jti", "subject", "key_id"])
def test_w12_what_one_service_is_told_closes_the_sockets_at_every_runner(fleet: Fleet, named: str) -> None:
    key = fleet.post("/keys", fleet.admin, apps=["*"])["key"]
    subject = f"{named}-1"  # its own: a subject's revocation concerns the whole second
    minted = fleet.post("/tokens/realtime", key, app=APP, subject=subject)
    body = {"token": minted["token"], "jti": minted["jti"], "subject": subject, "key_id": key.split(":")[0]}
    with ExitStack() as exits:
        concerned = [exits.enter_context(knock(runner, minted["token"])) for runner in fleet.runners for _ in range(2)]
        others = [exits.enter_context(knock(runner, fleet.mint(subject="other"))) for runner in fleet.runners]
        for socket in (*concerned, *others):
            assert ask(socket)["images"]
        concerned[0].send(msgpack.packb({"prompt": "under way"}))
        fleet.post("/tokens/revoke", fleet.admin, at=1, **{named: body[named]})
        assert [last_words(socket) for socket in concerned] == [REVOKED] * 4
        assert [refusal(runner, minted["token"]) for runner in fleet.runners] == [REVOKED] * 2
        for socket in others:
            assert ask(socket)["images"]


def test_a_revoked_key_takes_its_sockets_along_also_those_it_opened_itself(fleet: Fleet) -> None:
    key = fleet.post("/keys", fleet.admin, apps=["*"])["key"]
    token = fleet.post("/tokens/realtime", key, app=APP)["token"]
    header = {"Authorization": f"Key {key}"}
    with ExitStack() as exits:
        sockets = [exits.enter_context(knock(runner, token)) for runner in fleet.runners]
        for runner in fleet.runners:
            url = f"{runner.url}/{APP}/realtime"
            sockets.append(exits.enter_context(connect(url, additional_headers=header, max_size=None)))
        for socket in sockets:
            assert ask(socket)["images"]
        done = run_module("authsvc", "keys", "revoke", key.split(":")[0], env=fleet.env)
        assert done.returncode == 0, done.stderr
        assert [last_words(socket) for socket in sockets] == [REVOKED] * 4
        for runner in fleet.runners:
            with pytest.raises(InvalidStatus) as refused:
                connect(f"{runner.url}/{APP}/realtime", additional_headers=header)
            assert refused.value.response.status_code == 401


def test_the_command_line_revokes_what_lives(fleet: Fleet) -> None:
    token = fleet.mint(subject="user-3")
    with knock(fleet.runners[0], token) as socket:
        assert ask(socket)["images"]
        for argument, stdin in ((["--subject", "user-3"], ""), (["--token", "-"], token)):
            done = run_module("authsvc", "tokens", "revoke", *argument, "--json", env=fleet.env, stdin=stdin)
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["revoked"]["kind"] == ("token" if stdin else "subject")
            assert token not in done.stdout + done.stderr
        assert last_words(socket) == REVOKED
    checked = run_module("authsvc", "tokens", "check", "-", "--json", env=fleet.env, stdin=token)
    assert (checked.returncode, json.loads(checked.stdout)["code"]) == (1, "revoked_token")


@pytest.mark.parametrize(
    ("arguments", "blamed"),
    [
        ([], "--token"),
        (["--jti", "x", "--subject", "y"], "--token"),
        (["--subject", "two words"], "--subject"),
        (["--key", ""], "--key"),
        (["--subject", "x", "--issued-before", "99999999999"], "--issued-before"),
        (["--jti", "x", "--issued-before", "1"], "--issued-before"),
    ],
)
def test_a_wrong_use_of_the_command_names_the_option(tmp_path: Path, arguments: list[str], blamed: str) -> None:
    done = run_module("authsvc", "tokens", "revoke", *arguments, env={"AUTHSVC_DATA_DIR": str(tmp_path)})
    assert done.returncode == 2
    assert blamed in done.stderr
    assert "Traceback" not in done.stderr


def test_a_revocation_outlives_restarts_of_either_side_and_of_both(small_fleet: Fleet) -> None:
    fleet = small_fleet
    (authsvc,), (runner,) = fleet.authsvcs, fleet.runners
    first, second, good = fleet.mint(), fleet.mint(), fleet.mint(duration=600)
    runner.stop()
    fleet.post("/tokens/revoke", fleet.key, token=first)  # while the runner is down
    runner = fleet.start_runner(authsvc)
    assert refusal(runner, first) == REVOKED
    authsvc.stop()
    assert refusal(runner, first) == REVOKED  # what it knows it keeps
    with knock(runner, good) as socket:
        assert ask(socket)["images"]
        fleet.authsvcs[0] = fleet.start_authsvc(authsvc.port)
        fleet.post("/tokens/revoke", fleet.key, token=good)
        assert last_words(socket) == REVOKED
    assert refusal(runner, first) == REVOKED
    fleet.post("/tokens/revoke", fleet.key, token=second)
    runner.stop()
    fleet.authsvcs[0].stop()
    fleet.authsvcs[0] = fleet.start_authsvc(authsvc.port)
    runner = fleet.start_runner(fleet.authsvcs[0])
    assert [refusal(runner, token) for token in (first, second, good)] == [REVOKED] * 3
    with knock(runner, fleet.mint()) as socket:
        assert ask(socket)["images"]


def test_an_outage_is_said_once_and_a_runner_that_starts_in_it_admits_nobody(small_fleet: Fleet) -> None:
    fleet = small_fleet
    (authsvc,), (runner,) = fleet.authsvcs, fleet.runners
    token = fleet.mint(duration=600)
    authsvc.stop()
    runner.wait_for_line("keeping 0 revocations")
    newcomer = fleet.start_runner(authsvc)
    ready = httpx.get(f"{newcomer.url.replace('ws', 'http')}/health/ready")
    assert ready.status_code == 503
    said, code = refusal(newcomer, token)
    assert ([error for error, _ in said], code) == (["UNAVAILABLE"], 1013)
    with knock(runner, token) as socket:  # it was there before
        assert ask(socket)["images"]
    fleet.authsvcs[0] = fleet.start_authsvc(authsvc.port)
    runner.wait_for_line("the revocation list can be read again")
    newcomer.wait_for_line("the revocation list can be read again")
    fleet.post("/tokens/revoke", fleet.key, token=token)
    with knock(newcomer, token) as socket:
        assert last_words(socket) == REVOKED
    assert sum("keeping 0 revocations" in line for line in runner.lines) == 1


def test_without_polling_a_runner_needs_no_list_and_says_so(small_fleet: Fleet) -> None:
    fleet = small_fleet
    runner = fleet.start_runner(fleet.authsvcs[0], RUNNER_REVOCATION_POLL_S="0")
    runner.wait_for_line("revocations are not read: RUNNER_REVOCATION_POLL_S is 0")
    token = fleet.mint()
    fleet.post("/tokens/revoke", fleet.key, token=token)
    with knock(runner, token) as socket:
        assert ask(socket)["images"]
