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


def refuse(socket: ServerConnection, why: str = "The token has expired.") -> None:
    """How a runner refuses a token: in words, then a close that says not to try the same again."""
    socket.send(error("UNAUTHORIZED", why))
    socket.close(4001, why)


def revoke(playground: Playground) -> None:
    """What a runner does with a live socket whose token is revoked."""
    refuse(playground.runner.sockets[0], "the token was revoked")


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


def test_a_login_that_ended_in_another_tab_is_said_as_soon_as_its_socket_is_closed(playground: Playground) -> None:
    playground.open()
    other_tab = playground.page.context.new_page()
    other_tab.goto(playground.url)
    other_tab.get_by_role("button", name="Log out").click()
    expect(other_tab).to_have_url(f"{playground.url}/login")
    revoke(playground)
    playground.expect_state("Refused", "Your login has ended.")
    playground.page.get_by_role("link", name="Log in again").click()
    expect(playground.page).to_have_url(f"{playground.url}/login")


def test_a_token_that_was_revoked_alone_is_replaced_by_itself(playground: Playground) -> None:
    playground.open()
    revoke(playground)
    playground.runner.wait_for(lambda runner: len(runner.paths) == 2)
    playground.expect_state("Live")
    assert "token-2" in playground.runner.paths[1]


def test_who_is_refused_for_good_can_connect_again_by_a_button(playground: Playground) -> None:
    playground.runner.greet = lambda socket: refuse(socket, "the token was revoked")
    playground.log_in()
    playground.expect_state("Refused", "The token was revoked.")
    playground.runner.greet = lambda socket: None
    playground.press("Connect again")
    playground.expect_picture(STAR)
    playground.expect_state("Live")
    expect(playground.page.locator("#notice")).to_be_empty()
    expect(playground.page.get_by_label("Describe the picture")).to_be_focused()


def test_a_limit_of_the_token_is_said_and_a_new_token_is_asked_for_only_by_a_button(playground: Playground) -> None:
    used_up = "the token's max_requests is used up: mint a new token and reconnect"
    playground.open()
    playground.runner.sockets[0].send(error("LIMIT_EXCEEDED", used_up))
    playground.runner.hang_up(4029)  # a close has room for 123 bytes, so the message is what counts
    playground.expect_state("Refused", "The token's max_requests is used up: mint a new token and reconnect.")
    assert len(playground.mint.asked) == 1
    playground.press("Connect again")
    playground.expect_state("Live")
    assert len(playground.mint.asked) == 2


def test_a_rate_limit_is_said_and_waited_for(playground: Playground) -> None:
    limit = "The key mints at most 6 tokens a minute."
    playground.mint.error = MintError(HTTPStatus.TOO_MANY_REQUESTS, limit, retry_after="2")
    playground.log_in()
    playground.expect_state("Waiting", f"{limit} Next try in 2 s.")
    playground.mint.error = None
    playground.expect_picture(STAR)
    playground.expect_state("Live")


def test_typing_while_told_to_wait_asks_for_nothing(playground: Playground) -> None:
    asked = []
    playground.page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    playground.mint.error = MintError(HTTPStatus.TOO_MANY_REQUESTS, "The quota is used up.", retry_after="18700")
    playground.log_in()
    playground.expect_state("Waiting", "The quota is used up. Next try in 5 h 12 min.")
    playground.page.get_by_label("Describe the picture").press_sequentially(" and more words", delay=20)
    playground.expect_state("Waiting", "Next try in 5 h 12 min.")
    assert len(asked) == 1


def test_what_was_typed_during_a_wait_is_drawn_after_it(playground: Playground) -> None:
    playground.mint.error = MintError(HTTPStatus.TOO_MANY_REQUESTS, "Slow down.", retry_after="2")
    playground.log_in()
    playground.expect_state("Waiting", "Slow down. Next try in 2 s.")
    playground.mint.error = None
    playground.write("a circle")
    playground.expect_picture("a circle")
    assert [message["prompt"] for message in playground.runner.inputs] == ["a circle"]


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
