"""Every command: in this process for its ways to end, and once as a real process."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from authsvc.cli import main
from schemas import limits
from tests.authsvc.conftest import APP, on_sqlite
from tests.processes import run_module
from tests.stores import Store

Run = Callable[..., Result]


@pytest.fixture
def run(store: Store) -> Run:
    def invoke(*args: str, stdin: str = "", **env: str) -> Result:
        return CliRunner().invoke(main, args, input=stdin, env=store.env | env)

    return invoke


def answer(result: Result) -> dict[str, Any]:
    """The one JSON object that a command printed."""
    assert result.exit_code == 0, result.output
    (line,) = result.stdout.splitlines()
    return dict(json.loads(line))


def assert_fails(result: Result, exit_code: int, *words: str) -> None:
    """One clear line on stderr and nothing on stdout."""
    assert result.exit_code == exit_code, result.output
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert not [word for word in words if word not in result.stderr]


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(command, click.Group):
        return [found for name, child in command.commands.items() for found in commands(child, (*path, name))]
    return [path]


def test_the_commands_are_what_users_were_told() -> None:
    assert set(commands(main)) == {
        ("serve",),
        ("keys", "create"),
        ("keys", "list"),
        ("keys", "show"),
        ("keys", "change"),
        ("keys", "revoke"),
        ("keys", "rotate"),
        ("signing-keys", "rotate"),
        ("signing-keys", "list"),
        ("signing-keys", "revoke"),
        ("tokens", "mint"),
        ("tokens", "check"),
        ("tokens", "revoke"),
        ("audit", "list"),
        ("audit", "prune"),
        ("usage",),
        ("check-config",),
    }


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_has_json_and_help_with_an_example(run: Run, path: tuple[str, ...]) -> None:
    shown = run(*path, "--help").stdout
    assert "--json" in shown
    assert f"python -m authsvc {' '.join(path)}" in shown.split("Example:")[1]


def test_a_key_is_shown_once_and_listed_without_its_secret(run: Run) -> None:
    created = answer(run("keys", "create", "--name", "web", "--apps", APP, "--apps", "other", "--json"))
    key_id, secret = created["key"].split(":")
    assert (created["id"], created["name"], created["apps"]) == (key_id, "web", [APP, "other"])
    listed = run("keys", "list", "--json")
    assert answer(listed)["keys"] == [{name: value for name, value in created.items() if name != "key"}]
    assert secret not in listed.output + run("keys", "list").output


def test_without_json_stdout_is_the_key_alone(run: Run) -> None:
    result = run("keys", "create", "--apps", "*")
    assert result.stdout.startswith("lcmk_")
    assert len(result.stdout.splitlines()) == 1
    assert "not shown again" in result.stderr


def test_a_key_is_revoked(run: Run) -> None:
    key_id = answer(run("keys", "create", "--apps", "*", "--json"))["id"]
    revoked = answer(run("keys", "revoke", key_id, "--json"))
    assert revoked["revoked_at"] is not None
    assert answer(run("keys", "list", "--json"))["keys"] == [revoked]
    assert key_id in run("keys", "revoke", key_id).stdout


def test_a_key_that_is_not_there_cannot_be_revoked(run: Run) -> None:
    assert_fails(run("keys", "revoke", "lcmk_0"), 1, "keys list")


@pytest.mark.parametrize("apps", [[], ["--apps", ""], ["--apps", "not ok"], ["--apps", "a", "--apps", "a/*"]])
def test_a_key_needs_apps_that_are_apps(run: Run, apps: list[str]) -> None:
    assert_fails(run("keys", "create", *apps), 2, "--apps")


def test_a_name_has_a_bound(run: Run) -> None:
    assert_fails(run("keys", "create", "--apps", "a", "--name", "a" * 201), 2, "--name", "200")


def test_signing_keys_rotate_and_are_listed(run: Run) -> None:
    before = {key["state"]: key["kid"] for key in answer(run("signing-keys", "list", "--json"))["signing_keys"]}
    rotated = answer(run("signing-keys", "rotate", "--json"))
    assert rotated["kid"] == before["next"]
    after = {key["state"]: key["kid"] for key in answer(run("signing-keys", "list", "--json"))["signing_keys"]}
    assert (after["current"], after["retired"]) == (before["next"], before["current"])
    assert after["next"] in run("signing-keys", "rotate").stdout
    shown = run("signing-keys", "list").stdout
    assert shown.splitlines()[0].split() == ["kid", "state", "created", "activated", "retired"]
    assert "PRIVATE" not in shown


def test_a_token_is_minted_and_checked(run: Run) -> None:
    minted = answer(run("tokens", "mint", "--apps", APP, "--duration", "60", "--subject", "me", "--json"))
    claims = minted["claims"]
    assert (claims["sub"], claims["apps"], claims["exp"] - claims["iat"]) == ("me", [APP], 60)
    assert answer(run("tokens", "check", minted["token"], "--json")) == {"valid": True, "claims": claims}


def test_a_token_can_be_pinned_and_is_recorded(run: Run) -> None:
    pins = ["--one-time", "--max-session-s", "60", "--max-pixels", "262144"]
    claims = answer(run("tokens", "mint", "--apps", APP, *pins, "--json"))["claims"]
    assert (claims["one_time"], claims["max_session_s"], claims["max_pixels"]) == (True, 60, 262144)
    assert "client_id" not in claims
    (event,) = answer(run("audit", "list", "--kind", "minted", "--json"))["events"]
    assert (event["actor"], event["jti"], event["app"]) == ("cli", claims["jti"], APP)


def test_a_token_can_be_piped(run: Run) -> None:
    token = run("tokens", "mint", "--apps", APP).stdout
    checked = run("tokens", "check", "-", stdin=token)
    assert (checked.exit_code, APP in checked.stdout) == (0, True)


def test_a_bad_token_is_refused_with_its_code_and_not_repeated(run: Run) -> None:
    token = run("tokens", "mint", "--apps", APP).stdout.strip()
    # A base64url text of 85 characters is none, whatever they are (RFC 4648 §5).
    assert_fails(run("tokens", "check", token[:-1]), 1, "malformed_token")
    result = run("tokens", "check", token[::-1], "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["valid"] is False
    assert token[::-1][:20] not in result.output


@pytest.mark.parametrize(
    ("args", "option"),
    [
        (["--apps", "not ok"], "--apps"),
        (["--apps", "*"], "--apps"),
        (["--apps", "a", "--duration", "0"], "--duration"),
        (["--apps", "a", "--duration", "3601"], "--duration"),
        (["--apps", "a", "--duration", "soon"], "--duration"),
        ([], "--apps"),
        (["--subject", "", "--apps", "a"], "--subject"),
        (["--max-pixels", "0", "--apps", "a"], "--max-pixels"),
        (["--max-steps", "many", "--apps", "a"], "--max-steps"),
    ],
)
def test_what_cannot_be_minted_names_the_option(run: Run, args: list[str], option: str) -> None:
    assert_fails(run("tokens", "mint", *args), 2, option)


def test_a_lower_ceiling_holds_for_the_operator_too(run: Run) -> None:
    assert_fails(run("tokens", "mint", "--apps", "a", AUTHSVC_TOKEN_MAX_DURATION_S="60"), 2, "--duration", "60")


def test_too_many_apps_for_one_token_is_a_usage_error(run: Run) -> None:
    apps = [part for index in range(32) for part in ("--apps", f"{index:02}{'a' * (limits.APP_MAX_CHARS - 2)}")]
    assert_fails(run("tokens", "mint", *apps), 2, "--apps")


def test_check_config_shows_every_setting(run: Run, tmp_path: Path) -> None:
    checked = answer(run("check-config", "--json", AUTHSVC_PORT="8123"))
    assert checked["ok"] is True
    assert (checked["settings"]["port"], checked["settings"]["data_dir"]) == (8123, str(tmp_path))
    assert "AUTHSVC_JWKS_MAX_AGE_S" in run("check-config").stdout


def test_a_bad_setting_is_named(run: Run) -> None:
    assert_fails(
        run("check-config", AUTHSVC_PORT="http", AUTHSVC_LOG_LEVEL="loud"), 1, "AUTHSVC_PORT", "AUTHSVC_LOG_LEVEL"
    )


@on_sqlite
def test_a_bad_database_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "authsvc.sqlite3").write_bytes(b"something else" * 100)
    assert_fails(run("check-config"), 1, "database", "AUTHSVC_DATA_DIR")


@on_sqlite
def test_a_folder_that_cannot_be_made_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_fails(run("check-config", AUTHSVC_DATA_DIR=str(tmp_path / "file" / "data")), 1, str(tmp_path / "file"))


@pytest.mark.parametrize("args", [["nonsense"], ["serve", "--port", "70000"], ["keys"], ["keys", "revoke"]])
def test_wrong_usage_is_2(run: Run, args: list[str]) -> None:
    assert run(*args).exit_code == 2


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    env = {"AUTHSVC_DATA_DIR": str(tmp_path)}
    done = run_module("authsvc", "keys", "create", "--apps", "*", "--json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["apps"] == ["*"]
