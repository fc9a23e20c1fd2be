"""A fleet with a dashboard, and Debian's Chromium to look at it."""

import importlib.util
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent.protocol.signature import SigningKey

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
HERE = Path(__file__).resolve().parent

# The stage of the broker tests, with its broker and programs.
_spec = importlib.util.spec_from_file_location("nonn_test_stage", HERE.parent / "broker/conftest.py")
_stage = importlib.util.module_from_spec(_spec)
sys.modules["nonn_test_stage"] = _stage
_spec.loader.exec_module(_stage)
sys.path.insert(0, str(HERE))
from releases import bundle, with_graph  # noqa: E402 (beside this file)

broker, stage = _stage.broker, _stage.stage
free_port, wait_until = _stage.free_port, _stage.wait_until


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.broker)
            if CHROMIUM is None or _stage.MOSQUITTO is None:
                item.add_marker(
                    pytest.mark.skip(reason="chromium or mosquitto missing: apt install chromium mosquitto")
                )


class Fleet:
    """Three agents, a coordinator with a dashboard, and a source that is asked for frames."""

    def __init__(self, stage, port: int, *arguments: str, **environment: str) -> None:
        self.stage, self.broker_port, self.web_port = stage, port, free_port()
        self.agents = {f"pi-{n}": stage.agent(port, f"pi-{n}", str(n), *self.agent_arguments(n)) for n in range(3)}
        self.coordinator = stage.coordinator(port, "--dashboard-port", str(self.web_port), *arguments, **environment)
        self.url = f"http://127.0.0.1:{self.web_port}"
        wait_until(self._is_up, "the dashboard answers", 40.0)
        for name in self.agents:
            self.coordinator.wait_for(f"{name} is online")

    def agent_arguments(self, number: int) -> list[str]:
        """What agents get beside their student."""
        del number
        return []

    def send(self, source: str = "cam-door", **environment: str):
        """A program that sends a few labelled frames a second, for a long time."""
        return self.stage.program(
            "coordinator.cli", self.broker_port, "evaluate", "--dataset", str(noise(self.stage)), "--rate", "10",
            "--source", source, **environment,
        )  # fmt: skip

    def _is_up(self) -> bool:
        try:
            return urllib.request.urlopen(f"{self.url}/healthz", timeout=5).status == 200
        except (urllib.error.URLError, OSError):
            return False


class UpdatingFleet(Fleet):
    """A fleet that takes signed updates; `bundle_2` and `bundle_3` are newer versions of what it runs."""

    def __init__(self, stage, port: int, folder: Path, tiny: Path, *arguments: str, **environment: str) -> None:
        self.folder, self.key = folder, SigningKey.generate()
        self.keys = folder / "trusted-keys"
        self.keys.write_text(self.key.public("test").to_line() + "\n")
        self.key_file = folder / "release.key"
        self.key_file.touch(mode=0o600)
        self.key_file.write_bytes(self.key.to_pem())
        super().__init__(stage, port, *self._updates("main"), "--trial-s", "1", *arguments, **environment)
        self.bundles = {}
        for number in (2, 3):
            name = "a deployment whose name is far too long for any narrow column" if number == 3 else "tiny"
            release = with_graph(tiny, folder / f"v{number}", version=number, name=name)
            self.bundles[number] = folder / f"v{number}.nonn"
            self.bundles[number].write_bytes(bundle(release, self.key))

    def agent_arguments(self, number: int) -> list[str]:
        return self._updates(f"pi-{number}")

    def _updates(self, name: str) -> list[str]:
        return ["--updates-store", str(self.folder / f"store-{name}"), "--updates-trusted-keys", str(self.keys)]

    def signed_order(self) -> Path:
        """What the operator signs where the key is."""
        order = self.folder / "back.json"
        arguments = ["rollback", "--key", str(self.key_file), "--order-out", str(order)]
        assert self.stage.program("coordinator.cli", self.broker_port, *arguments).end(0) == 0
        return order


def noise(stage) -> Path:
    """600 images: a minute of frames."""
    folder = stage._folder / "noise"
    if not folder.exists():
        generator = np.random.default_rng(0)
        for number in range(600):
            name = ("circle", "square", "triangle")[number % 3]
            (folder / "test" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (8, 8), np.uint8)).save(folder / "test" / name / f"{number}.png")
    return folder


@pytest.fixture
def make_fleet(stage, broker):
    return lambda *arguments, **environment: Fleet(stage, broker.port, *arguments, **environment)


@pytest.fixture
def fleet(make_fleet) -> Fleet:
    return make_fleet()


@pytest.fixture
def make_updating_fleet(stage, broker, tmp_path, tiny):
    return lambda *arguments, **more: UpdatingFleet(stage, broker.port, tmp_path, tiny, *arguments, **more)


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Trouble(list):
    """What the page complained about."""


@pytest.fixture
def open_page(chromium):
    contexts = []

    def open_at(url: str, width: int = 1400, height: int = 900, scheme: str = "light"):
        context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.trouble = Trouble()
        page.on("console", lambda message: page.trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.trouble.append(str(error)))
        page.goto(url)
        return page

    yield open_at
    for context in contexts:
        context.close()
