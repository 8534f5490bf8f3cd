"""Nothing faked: authsvc, the runner, the site and Chromium, each a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.processes import module, start_process
from tests.stack import Stack, running
from tests.tiny_bundle import make_tiny_bundle
from tests.web.browsing import PIXEL, STAR

POCKET = Path(__file__).parents[2] / "models" / "pocket"
PASSWORD = "open sesame"
HEART = "a large yellow heart in the centre on a purple background"

pytestmark = pytest.mark.browser


@contextmanager
def run_site(stack: Stack) -> Iterator[str]:
    settings = {
        "WEB_AUTHSVC_URL": stack.authsvc_url,
        "WEB_RUNNER_URL": stack.runner_url,
        "WEB_API_KEY": stack.key,
        "WEB_PASSWORD": PASSWORD,
    }
    with start_process(module("web", "serve", "--port", "0"), settings) as process:
        yield process.url


@contextmanager
def open_page(browser: Browser, site: str) -> Iterator[Page]:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(site)
        log_in(page)
        expect_picture(page, STAR)
        yield page


def log_in(page: Page) -> None:
    page.get_by_label("User name").fill("demo")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()


def write(page: Page, prompt: str) -> None:
    page.get_by_label("Describe the picture").fill(prompt)
    expect_picture(page, prompt)


def expect_picture(page: Page, prompt: str) -> None:
    expect(page.locator("#picture img")).to_have_attribute("alt", prompt, timeout=30_000)


def sample(page: Page) -> list[list[int]]:
    return [page.evaluate(PIXEL, [(x + 0.5) / 8, (y + 0.5) / 8]) for x in range(8) for y in range(8)]


def test_pictures_change_with_the_words_and_come_back_with_them(browser: Browser, tmp_path: Path) -> None:
    with (
        running(make_tiny_bundle(tmp_path / "bundle")) as stack,
        run_site(stack) as site,
        open_page(browser, site) as page,
    ):
        expect(page.locator("#state")).to_have_text("Live")
        star = sample(page)
        write(page, HEART)
        assert sample(page) != star
        write(page, STAR)
        assert sample(page) == star  # the seed is kept


@pytest.mark.skipif(not (POCKET / "model.json").exists(), reason="models/pocket is not in this checkout")
def test_the_bundled_model_draws_what_one_types(browser: Browser) -> None:
    with running(POCKET) as stack, run_site(stack) as site, open_page(browser, site) as page:
        red, green, blue = page.evaluate(PIXEL, [0.92, 0.5])
        assert blue > 120 > max(red, green)
        page.get_by_label("Describe the picture").press("Control+A")
        page.keyboard.type(HEART)
        expect_picture(page, HEART)
        red, green, blue = page.evaluate(PIXEL, [0.5, 0.5])
        assert min(red, green) > 150 > blue  # yellow
        red, green, blue = page.evaluate(PIXEL, [0.06, 0.06])
        assert min(red, blue) > green  # purple


def test_logging_out_in_one_tab_ends_the_pictures_of_the_other(browser: Browser, tmp_path: Path) -> None:
    with (
        running(make_tiny_bundle(tmp_path / "bundle")) as stack,
        run_site(stack) as site,
        open_page(browser, site) as page,
        open_page(browser, site) as elsewhere,
    ):
        other_tab = page.context.new_page()
        other_tab.goto(site)
        expect_picture(other_tab, STAR)
        other_tab.get_by_role("button", name="Log out").click()
        expect(page.locator("#state")).to_have_text("Refused")
        expect(page.locator("#notice")).to_have_text("Your login has ended. Log in again")
        write(elsewhere, HEART)  # the same user in another browser
        page.get_by_role("link", name="Log in again").click()
        log_in(page)
        expect_picture(page, STAR)
