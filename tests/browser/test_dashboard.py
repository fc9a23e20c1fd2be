"""The dashboard as people use it, in a real browser on a real fleet."""

import io
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

LIVE_MS = 20_000  # for what takes half a second on an idle machine

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()


def png(size: int = 40) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(3).integers(0, 256, (size, size), np.uint8)).save(content, "PNG")
    return content.getvalue()


def wait_until_live(page):
    page.wait_for_selector("#link.good", timeout=LIVE_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_it_loads_without_complaints_and_reads_well(fleet, open_page, width, scheme):
    fleet.send()
    page = open_page(fleet.url, width=width, scheme=scheme)
    wait_until_live(page)
    page.wait_for_selector(".source .pill.good", timeout=LIVE_MS)
    page.wait_for_selector(".device .facts dd", timeout=LIVE_MS)
    assert page.locator(".device .pill.good").count() == 3
    assert page.locator("#graph circle").count() == 12
    assert page.locator(".source tbody tr").count() == 3
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) == []
    assert page.trouble == []


def test_a_dropped_image_gets_its_class(fleet, open_page):
    page = open_page(fleet.url)
    wait_until_live(page)
    transfer = page.evaluate_handle(
        """bytes => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([new Uint8Array(bytes)], "photo.png", { type: "image/png" }));
          return dropped;
        }""",
        list(png()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("#answer .class strong", timeout=LIVE_MS)
    assert page.inner_text("#answer .class strong") in ("circle", "square", "triangle")
    assert re.search(r"Answered in [\d.]+ ms", page.inner_text("#answer"))
    # The frame is an ordinary one: it shows up as a source, too.
    page.wait_for_selector("[aria-label='Source dashboard']", timeout=LIVE_MS)


def test_a_file_that_is_no_image_is_refused_in_words(fleet, open_page):
    page = open_page(fleet.url)
    wait_until_live(page)
    page.set_input_files("#file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image at all"})
    page.wait_for_selector("#answer .failed", timeout=LIVE_MS)
    assert "not an image" in page.inner_text("#answer")


def test_a_killed_agent_turns_red_within_three_seconds(fleet, open_page):
    fleet.send()
    page = open_page(fleet.url)
    wait_until_live(page)
    page.wait_for_selector("[data-device=pi-1] .pill.good", timeout=LIVE_MS)
    page.wait_for_selector(".source .pill.good", timeout=LIVE_MS)
    fleet.agents["pi-1"].end(signal.SIGKILL)
    killed = time.monotonic()
    page.wait_for_selector("[data-device=pi-1].offline .pill.bad", timeout=LIVE_MS)
    assert time.monotonic() - killed < 3.0
    page.wait_for_selector(".source .pill.warn", timeout=LIVE_MS)
    assert "without student 1" in page.inner_text(".source .pill.warn")
    page.wait_for_function("() => document.querySelectorAll('#graph .hollow').length === 4", timeout=LIVE_MS)
    assert "pi-1 is offline" in page.text_content("#announce")


def test_it_comes_back_by_itself_after_a_restart_of_the_coordinator(fleet, open_page):
    page = open_page(fleet.url)
    wait_until_live(page)
    fleet.coordinator.end()
    page.wait_for_selector("#link.bad", timeout=LIVE_MS)
    fleet.stage.coordinator(fleet.broker_port, "--dashboard-port", str(fleet.web_port)).wait_for("connected")
    wait_until_live(page)


def test_the_keyboard_reaches_everything_and_the_screen_reader_knows_it(fleet, open_page):
    page = open_page(fleet.url)
    wait_until_live(page)
    reached = []
    for _ in range(5):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
    assert {"skip", "theme", "file"} <= set(reached)
    for role, name in [
        ("heading", "Sources"),
        ("heading", "Devices"),
        ("heading", "Filter graph"),
        ("region", "Try an image"),
    ]:
        assert page.get_by_role(role, name=name).count() == 1, name
    assert page.get_by_role("banner").count() == page.get_by_role("main").count() == 1
    assert page.get_by_role("button", name="Switch between light and dark").count() == 1
    assert page.locator("[role=status]").count() >= 2
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("img:not([alt])").count() == 0


def test_the_colours_can_be_switched_and_stay(fleet, open_page):
    page = open_page(fleet.url)
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.focus("#theme")
    page.keyboard.press("Enter")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_strangers_log_in_with_the_token(make_fleet, open_page):
    token = "0123456789abcdef"
    page = open_page(make_fleet(NONN_DASHBOARD_TOKEN=token).url)
    assert page.url.endswith("/login")
    page.fill("#token", "a wrong token")
    page.keyboard.press("Enter")
    page.wait_for_load_state()
    assert page.url.endswith("/login")
    page.fill("#token", token)
    page.keyboard.press("Enter")
    wait_until_live(page)
    page.click("#logout button")
    page.wait_for_selector("#token", timeout=LIVE_MS)


def test_a_read_only_dashboard_offers_nothing_to_do(make_fleet, open_page):
    page = open_page(make_fleet("--dashboard-read-only", "true").url)
    wait_until_live(page)
    assert page.is_hidden("#try")
    assert page.evaluate("fetch('/api/classify', {method: 'POST', body: 'x'}).then((r) => r.status)") == 403
