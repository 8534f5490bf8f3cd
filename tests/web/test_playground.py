"""The playground in Chromium: words and settings in, pictures out."""

import json

import pytest
from playwright.sync_api import expect
from websockets.sync.server import ServerConnection

from tests.web.browsing import STAR, Playground
from tests.web.fake_runner import Message, result

pytestmark = pytest.mark.browser

RED, BLUE, YELLOW, PURPLE = (214, 40, 40), (40, 80, 210), (250, 218, 50), (130, 50, 170)
HEART = "a large yellow heart in the centre on a purple background"

WATCH_PICTURES = """() => {
  window.shown = [];
  const note = () => window.shown.push(document.querySelector("#picture img")?.alt);
  new MutationObserver(note).observe(document.querySelector("#picture"), { childList: true });
}"""


def is_like(colour: list[int], other: tuple[int, int, int]) -> bool:
    return all(abs(a - b) < 40 for a, b in zip(colour, other, strict=True))


def test_after_the_login_the_first_picture_comes_by_itself(playground: Playground) -> None:
    playground.open()
    playground.expect_state("Live")
    assert is_like(playground.pixel(0.23, 0.5), RED)
    assert is_like(playground.pixel(0.9, 0.5), BLUE)


def test_the_official_client_opened_the_socket_with_our_token_at_our_runner(playground: Playground) -> None:
    playground.open()
    assert playground.mint.asked == [("fal-ai/fast-lcm-diffusion/realtime", 120)]
    assert playground.runner.paths == ["/fal-ai/fast-lcm-diffusion/realtime?fal_jwt_token=token-1&max_buffering=1"]


def test_the_picture_follows_the_words(playground: Playground) -> None:
    playground.open()
    playground.page.get_by_label("Describe the picture").press("Control+A")
    playground.page.keyboard.type(HEART)
    playground.expect_picture(HEART)
    assert is_like(playground.pixel(0.5, 0.5), YELLOW)
    assert is_like(playground.pixel(0.05, 0.05), PURPLE)
    assert len(playground.runner.paths) == 1  # one socket for all of it


def test_an_older_result_never_covers_a_newer_one(playground: Playground) -> None:
    playground.open()
    playground.page.evaluate(WATCH_PICTURES)
    held: list[Message] = []

    def newest_first(socket: ServerConnection, message: Message) -> None:
        held.append(message)
        if message["prompt"] == "a blue circle":
            for late in reversed(held):
                socket.send(result(late))
        elif message["prompt"] == "a green square":
            socket.send(result(message))

    playground.runner.answer = newest_first
    playground.write("a red circle")
    playground.runner.wait_for(lambda runner: runner.inputs[-1]["prompt"] == "a red circle")
    playground.write("a blue circle")
    playground.expect_picture("a blue circle")
    playground.write("a green square")
    playground.expect_picture("a green square")
    assert playground.page.evaluate("window.shown") == ["a blue circle", "a green square"]


def test_an_empty_prompt_asks_for_nothing(playground: Playground) -> None:
    playground.open()
    playground.write("   ")
    playground.write(HEART)
    playground.expect_picture(HEART)
    assert [message["prompt"] for message in playground.runner.inputs] == [STAR, HEART]


def test_what_stands_at_auto_is_not_sent(playground: Playground) -> None:
    playground.open()
    assert playground.last_input().keys() == {"prompt", "seed", "request_id"}
    steps, guidance = playground.page.get_by_label("Steps"), playground.page.get_by_label("Guidance")
    expect(steps).to_have_attribute("aria-valuetext", "auto")
    steps.press("ArrowRight")
    steps.press("ArrowRight")
    guidance.press("ArrowRight")
    playground.runner.wait_for(lambda runner: "guidance_scale" in runner.inputs[-1])
    assert playground.last_input()["num_inference_steps"] == 2
    assert playground.last_input()["guidance_scale"] == 0.5
    steps.press("Home")
    playground.runner.wait_for(lambda runner: "num_inference_steps" not in runner.inputs[-1])
    expect(steps).to_have_attribute("aria-valuetext", "auto")


def test_a_kept_seed_stays_the_dice_draws_another_and_without_the_lock_each_is_new(playground: Playground) -> None:
    playground.open()
    playground.write("a circle")
    playground.expect_picture("a circle")
    kept, again = (message["seed"] for message in playground.runner.inputs)
    assert kept == again
    playground.press("Draw another seed")
    playground.runner.wait_for(lambda runner: len(runner.inputs) == 3)
    assert playground.last_input()["seed"] != kept
    playground.press("Keep the seed")
    for prompt in ("a square", "a star"):
        playground.write(prompt)
        playground.expect_picture(prompt)
    assert len({message["seed"] for message in playground.runner.inputs[2:]}) == 3


def test_examples_and_words_write_the_prompt(playground: Playground) -> None:
    playground.open()
    playground.press("yellow heart")
    playground.expect_picture(HEART)
    words = playground.page.get_by_role("group", name="Shape")
    expect(words.get_by_role("button", name="heart")).to_have_attribute("aria-pressed", "true")
    words.get_by_role("button", name="star").click()
    playground.page.get_by_role("group", name="Background").get_by_role("button", name="orange").click()
    playground.expect_picture("a large yellow star in the centre on an orange background")
    expect(words.get_by_role("button", name="heart")).to_have_attribute("aria-pressed", "false")


def test_a_picture_that_was_looked_at_can_be_gone_back_to(playground: Playground) -> None:
    playground.open()
    strip = playground.page.get_by_role("region", name="Recent pictures")
    expect(strip.get_by_role("button")).to_have_count(1)
    playground.write("a circle")
    playground.press("Draw another seed")
    expect(strip.get_by_role("button")).to_have_count(2)
    heard = len(playground.runner.inputs)
    strip.get_by_role("button", name=STAR).click()
    playground.expect_picture(STAR)
    expect(playground.page.get_by_label("Describe the picture")).to_have_value(STAR)
    expect(playground.page.get_by_label("Seed", exact=True)).to_have_value(str(playground.runner.inputs[0]["seed"]))
    assert len(playground.runner.inputs) == heard  # it was kept, not made again


def test_the_figures_say_how_fast_it_was_and_what_was_dropped(playground: Playground) -> None:
    playground.open()
    expect(playground.page.locator("#engine")).to_have_text("55")  # of queue 2, text 4, denoise 41, decode 9, encode 1
    assert playground.page.locator("#latency").inner_text().isdigit()
    playground.runner.answer = lambda socket, message: socket.send(result(message, dropped_inputs=3))
    for prompt, dropped in (("a circle", "3"), ("a square", "6")):
        playground.write(prompt)
        expect(playground.page.locator("#dropped")).to_have_text(dropped)


def test_download_saves_the_picture_under_its_words(playground: Playground) -> None:
    playground.open()
    with playground.page.expect_download() as download:
        playground.page.get_by_role("link", name="Download").click()
    seed = playground.last_input()["seed"]
    assert download.value.suggested_filename == f"a-large-red-star-at-the-left-on-{seed}.jpg"
    assert download.value.path().read_bytes().startswith(b"\xff\xd8")


@pytest.mark.parametrize(("width", "height"), [(1280, 860), (1024, 680), (768, 1024), (360, 740)])
def test_the_page_fits_and_the_picture_never_jumps(playground: Playground, width: int, height: int) -> None:
    playground.page.set_viewport_size({"width": width, "height": height})
    playground.open()
    playground.page.evaluate("scrollTo(0, 0)")
    box = playground.page.locator("#picture").bounding_box()
    assert box is not None
    assert box["width"] == pytest.approx(box["height"], abs=1)
    playground.write(" ".join(["a very long prompt"] * 12))
    playground.expect_picture(" ".join(["a very long prompt"] * 12))
    playground.page.evaluate("scrollTo(0, 0)")
    assert playground.page.locator("#picture").bounding_box() == box
    assert playground.page.evaluate("document.documentElement.scrollWidth") == width


def test_everything_can_be_reached_by_keyboard_and_has_a_name(playground: Playground) -> None:
    playground.open()
    reached = []
    for _ in range(70):
        playground.page.keyboard.press("Tab")
        name = playground.page.evaluate(
            "(e => e.id || e.ariaLabel || e.title || e.textContent.trim())(document.activeElement)"
        )
        reached.append(name)
    assert {"download", "surprise", "lock", "dice", "seed", "steps", "guidance", "star", "top left", "Log out"} <= {
        *reached
    }
    assert "" not in json.dumps(reached).split('", "')


def test_logging_out_leads_to_the_login_page(playground: Playground) -> None:
    playground.open()
    playground.press("Log out")
    expect(playground.page).to_have_url(f"{playground.url}/login")
    playground.page.goto(playground.url)
    expect(playground.page).to_have_url(f"{playground.url}/login")


def test_a_wrong_password_is_said_and_gets_no_token(playground: Playground) -> None:
    playground.log_in(password="wrong")
    expect(playground.page.get_by_role("alert")).to_contain_text("do not go together")
    expect(playground.page.get_by_label("User name")).to_have_value("demo")
    assert playground.mint.asked == []
