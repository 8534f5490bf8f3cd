"""`keys` and `signing-keys` at the command line: what they read, print and refuse."""

import json
import time
from pathlib import Path

import pytest

from authsvc.domain import signing_keys
from authsvc.ledger.audit import COMMAND_LINE
from schemas import limits
from schemas.tokens import PinnedLimits
from tests.authsvc.conftest import APP, on_sqlite
from tests.authsvc.test_cli import Run, answer, assert_fails, run

__all__ = ["run"]


def create(run: Run, *options: str) -> dict[str, object]:
    return answer(run("keys", "create", "--apps", APP, *options, "--json"))


def test_every_property_of_a_key_has_an_option(run: Run) -> None:
    pinned = {name: 1 + index for index, name in enumerate(PinnedLimits.model_fields)}
    options = [part for name, value in pinned.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    before = int(time.time())
    made = create(run, "--name", "web", "--rate-per-minute", "5", "--daily-quota", "7", "--expires-in", "90d", *options)
    assert (made["name"], made["rate_per_minute"], made["daily_quota"]) == ("web", 5, 7)
    assert made["limits"] == pinned
    assert before + 90 * 86400 <= int(str(made["expires_at"])) <= time.time() + 90 * 86400


@pytest.mark.parametrize("roles", [["admin"], ["runner"], ["admin", "runner"]])
def test_a_key_that_does_not_mint_needs_no_apps(run: Run, roles: list[str]) -> None:
    options = [part for role in roles for part in ("--role", role)]
    made = answer(run("keys", "create", *options, "--json"))
    assert (made["roles"], made["apps"]) == (roles, [])


def test_a_key_that_mints_among_other_things_needs_apps(run: Run) -> None:
    assert_fails(run("keys", "create", "--role", "admin", "--role", "mint"), 2, "--apps")


@pytest.mark.parametrize(
    ("written", "seconds"), [("45", 45), ("45s", 45), ("2m", 120), ("12h", 43200), ("2w", 1209600)]
)
def test_a_duration_has_a_unit(run: Run, written: str, seconds: int) -> None:
    before = int(time.time())
    expires_at = int(str(create(run, "--expires-in", written)["expires_at"]))
    assert before + seconds <= expires_at <= time.time() + seconds


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--expires-in", "soon"], "--expires-in"),
        (["--expires-in", "-5"], "--expires-in"),
        (["--expires-in", "1.5h"], "--expires-in"),
        (["--expires-in", "999999999999w"], "--expires-in"),
        (["--rate-per-minute", "0"], "--rate-per-minute"),
        (["--rate-per-minute", "many"], "--rate-per-minute"),
        (["--daily-quota", str(2**53)], "--daily-quota"),
        (["--max-steps", "51"], "--max-steps"),
        (["--max-session-s", "0"], "--max-session-s"),
        (["--role", "root"], "--role"),
        (["--name", "two\nlines"], "--name"),
    ],
)
def test_what_cannot_be_names_the_option(run: Run, options: list[str], named: str) -> None:
    assert_fails(run("keys", "create", "--apps", APP, *options), 2, named)


def test_a_change_touches_what_is_given(run: Run) -> None:
    made = create(run, "--name", "web", "--max-pixels", "9", "--max-steps", "4", "--expires-in", "1d")
    changed = answer(run("keys", "change", str(made["id"]), "--max-steps", "none", "--expires-in", "none", "--json"))
    assert (changed["name"], changed["apps"], changed["expires_at"]) == ("web", [APP], None)
    assert changed["limits"] == {**PinnedLimits(max_pixels=9).model_dump()}
    assert answer(run("keys", "show", str(made["id"]), "--json")) == changed
    shown = run("keys", "show", str(made["id"])).stdout
    assert "max_pixels=9" in shown
    assert "PinnedLimits" not in shown


def test_a_change_of_nothing_is_a_usage_error(run: Run) -> None:
    made = create(run)
    assert_fails(run("keys", "change", str(made["id"])), 2, "--rate-per-minute")


def test_a_rotation_prints_the_new_secret_once(run: Run) -> None:
    made = create(run)
    before = int(time.time())
    rotated = answer(run("keys", "rotate", str(made["id"]), "--grace", "1h", "--json"))
    assert rotated["id"] == made["id"]
    assert rotated["key"] != made["key"]
    assert before + 3600 <= rotated["previous_valid_until"] <= time.time() + 3600
    again = run("keys", "rotate", str(made["id"]))
    assert again.stdout.startswith(f"{made['id']}:")
    assert "not shown again" in again.stderr
    assert_fails(run("keys", "rotate", str(made["id"]), "--grace", f"{limits.KEY_GRACE_MAX_S + 1}"), 2, "--grace")


def test_a_revoked_key_stays_so(run: Run) -> None:
    key_id = str(create(run)["id"])
    first = answer(run("keys", "revoke", key_id, "--json"))
    assert answer(run("keys", "revoke", key_id, "--json")) == first
    assert_fails(run("keys", "change", key_id, "--name", "x"), 1, "revoked")
    assert_fails(run("keys", "rotate", key_id), 1, "revoked")


def test_the_command_line_may_revoke_the_last_admin(run: Run) -> None:
    """Who can read the database can make another."""
    key_id = answer(run("keys", "create", "--role", "admin", "--json"))["id"]
    assert answer(run("keys", "revoke", key_id, "--json"))["revoked_at"] is not None


@pytest.mark.parametrize("command", [["show"], ["change", "--name", "x"], ["revoke"], ["rotate"]])
def test_a_key_that_is_not_there(run: Run, command: list[str]) -> None:
    create(run)
    for key_id in ("lcmk_0", "\x7f", "x" * 100):
        assert_fails(run("keys", *command, key_id), 1, "keys list")


@on_sqlite
@pytest.mark.parametrize(
    "command", [["list"], ["show", "x"], ["change", "x", "--name", "y"], ["revoke", "x"], ["rotate", "x"]]
)
def test_a_wrong_folder_is_told_and_left_alone(run: Run, tmp_path: Path, command: list[str]) -> None:
    folder = tmp_path / "wrong"
    assert_fails(run("keys", *command, AUTHSVC_DATA_DIR=str(folder)), 1, str(folder), "AUTHSVC_DATA_DIR")
    assert not folder.exists()


def test_a_signing_key_is_revoked(run: Run) -> None:
    before = {key["state"]: key["kid"] for key in answer(run("signing-keys", "list", "--json"))["signing_keys"]}
    # A kid may look like an option.
    left = answer(run("signing-keys", "revoke", "--json", "--", before["current"]))["signing_keys"]
    assert {key["state"] for key in left} == {"current", "next"}
    assert before["current"] not in [key["kid"] for key in left]
    assert [key["kid"] for key in left if key["state"] == "current"] == [before["next"]]
    assert before["next"] in run("signing-keys", "list").stdout
    assert_fails(run("signing-keys", "revoke", "--", before["current"]), 1, "signing-keys list")
    assert_fails(run("signing-keys", "revoke", "x"), 1, "signing-keys list")


def test_a_rotation_that_never_gets_its_turn_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing_keys, "_ROTATION_TRIES", 0)
    assert_fails(run("signing-keys", "rotate"), 1, "try again")


def test_what_commands_change_is_in_the_audit_log(run: Run) -> None:
    key_id, secret = str(create(run, "--name", "web")["key"]).split(":")
    run("keys", "rotate", key_id)
    events = answer(run("audit", "list", "--json"))["events"]
    assert [(event["kind"], event["actor"], event["key_id"]) for event in reversed(events)] == [
        ("key_created", COMMAND_LINE, key_id),
        ("rotated", COMMAND_LINE, key_id),
    ]
    assert secret not in json.dumps(events)
