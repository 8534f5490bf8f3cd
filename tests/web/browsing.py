"""Chromium at the playground, and what a test reads off the page."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from tests.web.fake_runner import FakeRunner
from tests.web.staging import PASSWORD, FakeMint

CHROMIUM = Path("/usr/bin/chromium")
# Without a screen, without a sandbox (tests may run as root), and without calls to Google.
ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STAR = "a large red star at the left on a blue background"
"""The prompt that the page starts with."""

PIXEL = """([x, y]) => {
  const image = document.querySelector("#picture img");
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return [...context.getImageData(x * canvas.width, y * canvas.height, 1, 1).data].slice(0, 3);
}"""


@contextmanager
def run_chromium() -> Iterator[Browser]:
    """A headless Chromium; skips the test where there is none."""
    if not CHROMIUM.exists():
        pytest.skip(f"no Chromium at {CHROMIUM} (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@dataclass
class Playground:
    """The page, and the parts behind it."""

    page: Page
    url: str
    runner: FakeRunner
    mint: FakeMint
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._on_console)

    def log_in(self, password: str = PASSWORD) -> None:
        """Through the form."""
        self.page.goto(self.url)
        self.page.get_by_label("User name").fill("demo")
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Log in").click()

    def open(self) -> None:
        """Log in and wait for the first picture."""
        self.log_in()
        self.expect_picture(STAR)

    def write(self, prompt: str) -> None:
        """Put `prompt` in the place of what stands there."""
        self.page.get_by_label("Describe the picture").fill(prompt)

    def press(self, name: str) -> None:
        """A button by its name."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def expect_picture(self, prompt: str) -> None:
        """Wait until the picture of `prompt` shows."""
        expect(self.page.locator("#picture img")).to_have_attribute("alt", prompt)

    def expect_state(self, state: str, notice: str = "") -> None:
        """Wait until the connection is said to be in `state`, for the reason `notice`."""
        expect(self.page.locator("#state")).to_have_text(state)
        expect(self.page.locator("#notice")).to_contain_text(notice)

    def pixel(self, x: float, y: float) -> list[int]:
        """RGB of the shown picture at (x, y), each from 0 to 1."""
        colour: list[int] = self.page.evaluate(PIXEL, [x, y])
        return colour

    def last_input(self) -> dict[str, Any]:
        """What the runner heard last."""
        return self.runner.inputs[-1]

    def _on_console(self, message: ConsoleMessage) -> None:
        # A socket that cannot be opened is said here by the browser itself, and is what some tests are about.
        if message.type == "error" and "WebSocket connection" not in message.text and "status of" not in message.text:
            self.complaints.append(message.text)
