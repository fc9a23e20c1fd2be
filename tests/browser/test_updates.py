"""Deploy and rollback from the dashboard, in a real browser on a fleet that checks signatures."""

import json
import urllib.error
import urllib.request

import pytest
from releases import bundle, with_graph
from test_dashboard import CONTRAST, LIVE_MS, wait_until_live

from edge_agent.protocol.signature import SigningKey

UPDATE_MS = 60_000  # six seconds on an idle machine, of which one is the trial


def deploy(page, path, canaries=()):
    page.click("#deploy")
    page.set_input_files("#bundle", path)
    for name in canaries:
        page.check(f"#canaries input[value={name}]")
    page.fill("[name=frames]", "20")
    page.click("#deploy-dialog button[type=submit]")


def wait_until_it_runs(page, version):
    page.wait_for_function(
        f"() => document.querySelector('#running').textContent.includes('version {version} ')", timeout=UPDATE_MS
    )


def test_deploy_with_a_canary_and_back_again(make_updating_fleet, open_page):
    fleet = make_updating_fleet()
    fleet.send()
    page = open_page(fleet.url)
    wait_until_live(page)
    wait_until_it_runs(page, 1)
    assert page.is_disabled("#rollback")
    page.wait_for_selector(".source .pill.good", timeout=LIVE_MS)
    deploy(page, fleet.bundles[2], canaries=["pi-1"])
    page.wait_for_selector("#steps .now", timeout=UPDATE_MS)
    page.wait_for_selector("#canary dd", timeout=UPDATE_MS)
    wait_until_it_runs(page, 2)
    page.wait_for_selector("#rollout-note.good-note", timeout=UPDATE_MS)
    assert "Every student answers with it" in page.inner_text("#rollout-note")
    assert "100.0 %" in page.inner_text("#canary")
    assert "version 1 " in page.inner_text("#before")
    # The new deployment brings its graph along, and each device colours its partition.
    page.wait_for_selector("#graph .edge", state="attached", timeout=LIVE_MS)
    assert page.locator("#graph .edge").count() == 4
    assert page.evaluate("new Set([...document.querySelectorAll('#graph circle')].map((c) => c.style.fill)).size") == 3
    assert page.evaluate(CONTRAST) == []

    page.click("#rollback")
    assert "version 1" in page.inner_text("#rollback-target")
    page.click("#rollback-dialog button[type=submit]")
    page.wait_for_selector("#rollback-dialog [role=alert]", timeout=LIVE_MS)
    assert "sign" in page.inner_text("#rollback-dialog [role=alert]"), "nobody goes back without a key"
    page.set_input_files("#order", fleet.signed_order())
    page.click("#rollback-dialog button[type=submit]")
    wait_until_it_runs(page, 1)
    page.wait_for_selector("#rollout-note.good-note", timeout=UPDATE_MS)
    assert page.locator(".device .pill.good").count() == 3
    # Only the refused rollback complained, in the browser's own words.
    assert [line for line in page.trouble if "409" not in line] == []


def test_what_is_wrong_with_a_bundle_is_said_in_the_dialog(make_updating_fleet, open_page, tiny, tmp_path):
    fleet = make_updating_fleet()
    page = open_page(fleet.url)
    wait_until_live(page)
    wait_until_it_runs(page, 1)
    stranger = tmp_path / "stranger.nonn"
    stranger.write_bytes(bundle(with_graph(tiny, tmp_path / "strange", version=9), SigningKey.generate()))
    deploy(page, stranger)
    alert = page.locator("#deploy-dialog [role=alert]")
    alert.wait_for(timeout=LIVE_MS)
    assert "signed by" in alert.inner_text()
    page.set_input_files("#bundle", {"name": "cat.nonn", "mimeType": "", "buffer": b"no bundle at all"})
    page.click("#deploy-dialog button[type=submit]")
    page.wait_for_function(
        "() => document.querySelector('#deploy-dialog [role=alert]').textContent.includes('not a .nonn')"
    )
    page.keyboard.press("Escape")
    assert page.is_hidden("#deploy-dialog")
    assert "version 1 " in page.inner_text("#running")


def test_dialogs_are_reached_and_read_without_a_mouse(make_updating_fleet, open_page):
    page = open_page(make_updating_fleet().url, width=400)
    wait_until_live(page)
    wait_until_it_runs(page, 1)
    page.focus("#deploy")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Deploy a bundle")
    assert dialog.is_visible()
    assert page.get_by_label("Bundle", exact=True).count() == 1
    assert dialog.get_by_role("checkbox", name="pi-1").count() == 1
    assert page.evaluate("document.querySelector('dialog[open]').contains(document.activeElement)")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate(CONTRAST) == []
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "deploy", "focus returns to where it came from"


def refused(url, path, body, headers=None):
    request = urllib.request.Request(url + path, body, headers or {})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    return caught.value.code, json.loads(caught.value.read())["error"]


def test_read_only_and_strangers_cannot_change_what_runs(make_updating_fleet, open_page):
    token = "0123456789abcdef"
    fleet = make_updating_fleet("--dashboard-read-only", "true", NONN_DASHBOARD_TOKEN=token)
    content = fleet.bundles[2].read_bytes()
    allowed = {"Authorization": f"Bearer {token}"}
    for path in ("/api/deploy", "/api/rollback"):
        assert refused(fleet.url, path, content)[0] == 401
        assert refused(fleet.url, path, content, allowed) == (403, "this dashboard is read-only")
    page = open_page(fleet.url)
    page.fill("#token", token)
    page.keyboard.press("Enter")
    wait_until_live(page)
    wait_until_it_runs(page, 1)
    assert page.is_hidden("#deploy")
    assert page.is_hidden("#rollback")


def test_a_coordinator_without_store_says_so(fleet, open_page):
    code, error = refused(fleet.url, "/api/deploy", b"x")
    assert (code, "--updates-store" in error) == (409, True)
    page = open_page(fleet.url)
    wait_until_live(page)
    assert page.is_hidden("#updates")
