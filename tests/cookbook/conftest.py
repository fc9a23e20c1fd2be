"""One fleet for all recipes."""

import importlib.util
import os
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).resolve().parent
_spec = importlib.util.spec_from_file_location("nonn_cookbook_stage", HERE.parent / "broker/conftest.py")
_stage = importlib.util.module_from_spec(_spec)
sys.modules["nonn_cookbook_stage"] = _stage
_spec.loader.exec_module(_stage)
TOOLS = ("mosquitto_sub", "mosquitto_pub", "jq", "curl")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.broker)
            if absent or _stage.MOSQUITTO is None:
                item.add_marker(pytest.mark.skip(reason=f"apt install mosquitto mosquitto-clients jq curl: {absent}"))


class Kitchen:
    """A site whose broker, dashboard and pictures the recipes use."""

    def __init__(self, stage, broker, folder: Path, tiny: Path) -> None:
        self.stage, self.broker, self.folder = stage, broker, folder
        self.site = stage.site
        port = _stage.free_port()
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("NONN_")},
            "NONN_BROKER_HOST": "127.0.0.1", "NONN_BROKER_PORT": str(broker.port), "NONN_SITE": stage.site,
            "DASHBOARD": f"http://127.0.0.1:{port}", "DEPLOYMENT": str(tiny), "SITE": f"nonn/1/{stage.site}",
            "BROKER": f"-h 127.0.0.1 -p {broker.port}", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "120",
        }  # fmt: skip
        for number in range(3):
            stage.agent(broker.port, f"pi-{number}", str(number)).wait_for("connected")
        flags = ["--dashboard-port", str(port), "--home-assistant-enabled", "true"]
        coordinator = stage.coordinator(broker.port, *flags)
        for number in range(3):
            coordinator.wait_for(f"pi-{number} is online")
        self._until_up(f"http://127.0.0.1:{port}/healthz")
        self._take_pictures()

    def _until_up(self, url: str) -> None:
        def answers() -> bool:
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except OSError:
                return False
            return True

        _stage.wait_until(answers, url, 40)

    def _take_pictures(self) -> None:
        generator = np.random.default_rng(0)

        def picture(path: Path) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (24, 32, 3), np.uint8)).save(path)

        picture(self.folder / "photo.jpg")
        for number in range(3):
            picture(self.folder / f"photos/{number}.jpg")
        for name in ("circle", "square", "triangle"):
            for number in range(2):
                picture(self.folder / f"labelled/test/{name}/{number}.png")
        for name in ("cup", "spoon"):
            for number in range(24):
                picture(self.folder / f"phone/{'test' if number % 4 == 0 else 'train'}/{name}/{number}.jpg")


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Iterator[Kitchen]:
    folder = tmp_path_factory.mktemp("kitchen")
    broker = _stage.Broker(folder)
    stage = _stage.Stage(folder, tiny)
    try:
        yield Kitchen(stage, broker, folder, tiny)
    finally:
        stage.close()
        broker.kill()
