"""What the playground does when something is wrong: it says so in words, and comes back by itself."""

from http import HTTPStatus
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect
from websockets.sync.server import ServerConnection

from tests.web.browsing import STAR, Playground
from tests.web.fake_runner import error, result, run_fake_runner
from web.minting import MintError

pytestmark = pytest.mark.browser


def refuse(socket: ServerConnection) -> None:
    """How a runner refuses a token: in words, then a close that says not to try the same again."""
    socket.send(error("UNAUTHORIZED", "The token has expired."))
    socket.close(4001, "The token has expired.")


def test_an_idle_close_is_no_error_and_the_next_word_wakes_it(playground: Playground) -> None:
    playground.open()
    playground.runner.sockets[0].send(error("TIMEOUT", "no inputs, reconnect when needed!"))
    playground.runner.hang_up()
    playground.expect_state("Idle")
    expect(playground.page.locator("#notice")).to_be_empty()
    playground.write("a circle")
    playground.expect_picture("a circle")
    playground.expect_state("Live")
    assert len(playground.mint.asked) == 2


def test_a_field_error_names_the_field_and_the_next_picture_takes_it_back(playground: Playground) -> None:
    playground.open()
    detail = [{"loc": ["body", "num_inference_steps"], "msg": "Input should be less than 5", "type": "less_than"}]
    playground.runner.answer = lambda socket, message: socket.send(
        error("VALIDATION_ERROR", "invalid input", detail=detail, request_id=message["request_id"])
        if message["prompt"] == "a circle"
        else result(message)
    )
    playground.write("a circle")
    playground.expect_state("Live", "Steps: input should be less than 5.")
    playground.expect_picture(STAR)
    playground.write("a square")
    playground.expect_picture("a square")
    expect(playground.page.locator("#notice")).to_be_empty()


def test_an_engine_failure_is_said_with_its_id(playground: Playground) -> None:
    playground.open()
    playground.runner.answer = lambda socket, message: socket.send(
        error("INTERNAL_ERROR", "internal error", error_id="abc123", request_id=message["request_id"])
    )
    playground.write("a circle")
    playground.expect_state("Live", "The engine failed on this picture. The log has it as abc123.")


def test_a_runner_that_is_still_starting_is_asked_again(playground: Playground) -> None:
    playground.runner.answer = lambda socket, message: socket.send(error("UNAVAILABLE", "The model is loading."))
    playground.log_in()
    playground.expect_state("Reconnecting", "The model is loading.")
    playground.runner.answer = lambda socket, message: socket.send(result(message))
    playground.expect_picture(STAR)
    playground.expect_state("Live")


def test_one_refusal_may_be_an_old_token_and_a_fresh_one_is_fetched(playground: Playground) -> None:
    refusals = iter([refuse])
    playground.runner.greet = lambda socket: next(refusals, lambda _: None)(socket)
    playground.open()
    playground.expect_state("Live")
    assert len(playground.mint.asked) == 2


def test_a_second_refusal_is_final_and_says_why(playground: Playground) -> None:
    playground.runner.greet = refuse
    playground.log_in()
    playground.expect_state("Refused", "The token has expired.")
    assert len(playground.runner.paths) == 2


def test_a_token_for_another_app_is_refused_at_once(playground: Playground) -> None:
    playground.runner.greet = lambda socket: socket.close(4003, "The token is for another app.")
    playground.log_in()
    playground.expect_state("Refused", "The token is for another app.")
    assert len(playground.runner.paths) == 1


def test_a_runner_that_restarts_is_come_back_to(playground: Playground) -> None:
    playground.open()
    playground.runner.hang_up(1001, "Going away.")
    playground.expect_picture(STAR)
    playground.runner.wait_for(lambda runner: len(runner.paths) == 2)
    playground.expect_state("Live")


def test_a_runner_that_is_away_for_a_while_is_waited_for(playground: Playground) -> None:
    port = urlsplit(playground.runner.url).port or 0
    playground.open()
    playground.runner.stop()
    playground.runner.hang_up(1012)
    playground.write("a circle")
    playground.expect_state("Reconnecting", "The runner does not answer.")
    with run_fake_runner(port):
        playground.expect_picture("a circle")
        playground.expect_state("Live")


def test_a_login_that_ended_is_said_with_the_way_back(playground: Playground) -> None:
    playground.open()
    playground.page.context.clear_cookies()
    playground.runner.hang_up()
    playground.expect_state("Idle")
    playground.write("a circle")
    playground.expect_state("Refused", "Your login has ended.")
    playground.page.get_by_role("link", name="Log in again").click()
    expect(playground.page).to_have_url(f"{playground.url}/login")


def test_a_token_service_that_is_away_is_said_and_asked_again(playground: Playground) -> None:
    playground.mint.error = MintError(HTTPStatus.SERVICE_UNAVAILABLE, "The token service does not answer.")
    playground.log_in()
    playground.expect_state("Reconnecting", "The token service does not answer.")
    playground.mint.error = None
    playground.expect_picture(STAR)
    playground.expect_state("Live")


def test_a_key_without_the_apps_scope_is_final(playground: Playground) -> None:
    playground.mint.error = MintError(HTTPStatus.FORBIDDEN, "The key may not mint for this app.")
    playground.log_in()
    playground.expect_state("Refused", "The key may not mint for this app.")
    assert playground.runner.paths == []
