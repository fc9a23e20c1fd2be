"""From nothing to an answer: init, three cards, their first boot, broker, deploy, classify, over TLS."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_broker import free_port, wait_until
from secure_site import Site, SiteBroker, run

from edge_agent.console.bundle_command import run_bundle
from firmware_images.first_boot.provision import DeviceFolders, Outcome, apply_card

pytestmark = pytest.mark.broker
PATIENCE_S = 200.0  # three interpreters, a coordinator and their tools start on what may be a busy machine


@contextmanager
def writable() -> Iterator[None]:
    yield


def first_boot(card_text: str, folder: Path) -> Path:
    """Put a card into a new device; the settings of its agent."""
    card, root = folder / "card", folder / "root"
    zones = root / "usr/share/zoneinfo"
    card.mkdir(parents=True)
    zones.mkdir(parents=True)
    (root / "etc").mkdir()
    (zones / "iso3166.tab").write_text("DE\tGermany\n")
    (zones / "UTC").write_bytes(b"TZif")
    (card / "nonn-edge.toml").write_text(card_text)
    applied = apply_card(
        DeviceFolders(card, root, owners=False), writable, datetime.now(UTC), has_deployment=False
    )  # fmt: skip
    assert applied.outcome is Outcome.APPLIED, applied.problems
    assert "PRIVATE KEY" not in (card / "nonn-edge.toml").read_text()
    # The device's paths begin at its own root.
    settings = root / "etc/nonn-edge/agent.toml"
    text = settings.read_text()
    for top in ("etc", "var", "run"):
        text = text.replace(f'"/{top}/', f'"{root}/{top}/')
    settings.write_text(text)
    return settings


def start(stack: ExitStack, module: str, *words: str | Path) -> subprocess.Popen[bytes]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("NONN_")}
    child = subprocess.Popen(
        [sys.executable, "-m", module, *map(str, words)], env=clean, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    stack.callback(child.wait)
    stack.callback(child.terminate)
    return child


def said(*words: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "coordinator.cli", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def test_a_stranger_gets_an_answer_over_tls(tmp_path: Path, tiny: Path) -> None:
    site = Site(tmp_path / "nonn-site", free_port())
    assert run("init", site.folder, "--broker-host", "localhost", "--broker-port", str(site.port)) == 0
    for index in range(3):
        assert site.device("add", f"pi-{index}", "--students", str(index)) == 0
    operator = site.settings("operator")
    with ExitStack() as stack:
        broker = SiteBroker(site)
        stack.callback(broker.stop)
        start(stack, "coordinator.cli", "run", "--config", site.settings("coordinator"), "--deployment", tiny,
              "--trial-s", "0.5", "--deadline-ms", "20000")  # fmt: skip
        for index in range(3):
            settings = first_boot(site.card(f"pi-{index}").read_text(), tmp_path / f"pi-{index}")
            start(stack, "edge_agent.cli", "run", "--config", settings, "--telemetry-s", "0.5")
        wait_until(lambda: broker.log.count("New client connected") >= 4, "all four are there", PATIENCE_S)

        bundle = tmp_path / "tiny-2.nonn"
        key = site.folder / "keys/deployment.key"
        assert run_bundle([str(tiny), "--version", "2", "--key", str(key), "--out", str(bundle)], "bundle") == 0
        started = time.monotonic()
        while True:  # the coordinator may still be loading
            code, text = said("deploy", bundle, "--config", operator, "--wait", "--timeout", "150")
            if code == 0 or time.monotonic() - started > PATIENCE_S:
                break
        assert code == 0, text

        picture = tmp_path / "grey.png"
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(picture)
        code, text = said("classify", picture, "--config", operator, "--json", "--wait", "60")
        assert code == 0, text
        answer = json.loads(text)["answer"]
        assert answer["result"] == "complete"
        assert answer["missing"] == []

        code, text = said("status", "--config", operator, "--json")
        assert code == 0, text
        status = json.loads(text)
        assert status["insecure"] == []
        assert sorted(status["devices"]) == ["pi-0", "pi-1", "pi-2"]
        assert all(device["info"]["certificate_until"] > "2027" for device in status["devices"].values())
        # Each logged in with its own certificate, and nobody without one.
        for name in ("pi-0", "pi-1", "pi-2", "main", "operator"):
            assert f"u'{name}'" in broker.log
