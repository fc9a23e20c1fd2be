"""Plain MQTT beyond this machine stands in red on the dashboard, for as long as somebody speaks it."""

from pathlib import Path

import pytest

LIVE_MS = 20_000  # for what takes half a second on an idle machine
CONTRAST = (Path(__file__).parent / "contrast.js").read_text()
# This machine by an address that is not loopback's: no other machine can be asked in a test.
EXPOSED = {"NONN_BROKER_HOST": "0.0.0.0", "NONN_BROKER_INSECURE": "true"}
COLOURS = """() => {
  const style = getComputedStyle(document.querySelector("#insecure"));
  const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
  return [parts(style.color), parts(style.backgroundColor)];
}"""


def is_red(colour):
    red, green, blue = colour
    return red > green + 20 and red > blue + 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_insecure_coordinator_is_a_red_banner(make_fleet, open_page, scheme):
    page = open_page(make_fleet(**EXPOSED).url, scheme=scheme)
    page.wait_for_selector("#insecure:visible", timeout=LIVE_MS)
    assert page.inner_text("#insecure").startswith("Insecure: coordinator without TLS;")
    assert page.get_by_role("alert").filter(has_text="Insecure").count() == 1
    assert [is_red(colour) for colour in page.evaluate(COLOURS)] == [True, True]
    assert page.evaluate(CONTRAST) == []
    assert page.trouble == []


def test_an_insecure_device_is_named_until_it_is_gone(fleet, open_page):
    page = open_page(fleet.url)
    page.wait_for_selector("#link.good", timeout=LIVE_MS)
    assert page.is_hidden("#insecure")
    careless = fleet.stage.agent(fleet.broker_port, "pi-careless", "2", **EXPOSED)
    page.wait_for_selector("#insecure:visible", timeout=LIVE_MS)
    assert page.inner_text("#insecure").startswith("Insecure: pi-careless without TLS;")
    careless.end()
    page.wait_for_selector("#insecure", state="hidden", timeout=LIVE_MS)
