"""The site of a boot test, made as its operator makes one: init, device add, broker, coordinator, signed bundles."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import TracebackType
from typing import Self

from edge_agent.protocol.broker import BrokerSettings
from firmware_images import programs
from firmware_images.boot_site import HOST_SEEN_BY_GUEST, SITE, free_port

# The two students of the example are 440 KB: half a minute, in which a plug can be pulled.
ARTIFACT_BYTES_PER_S = 15_000
# An emulated device takes seconds for a frame where a Pi takes milliseconds.
DEADLINE_MS = 60_000
# An emulated device takes minutes to be there at all.
DEPLOY_TIMEOUT_S = 7200
HUB = "edge-hub"  # the device that is its site's broker and coordinator
IDENTITY = {"ca": "ca.pem", "cert": "device.pem", "key": "device.key"}  # of a card's [broker], as files


class BootSite:
    """A site's folder with its broker and coordinator on this machine; `deployment`: what it starts with."""

    broker_host = HOST_SEEN_BY_GUEST

    def __init__(self, folder: Path, deployment: Path) -> None:
        self._work, self._deployment = folder, deployment.resolve()
        self._folder = folder / "site"
        self.port = free_port()
        words = ["--site", SITE, "--broker-host", self.broker_host, "--broker-name", "127.0.0.1"]
        _run("coordinator.cli", "init", self._folder, *words, "--broker-port", self.port)
        self._key = self._folder / "keys/deployment.key"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._start("mosquitto", ["mosquitto", "-c", str(self._folder / "broker/mosquitto.conf")])
        settings = self._folder / "coordinator/coordinator.toml"
        self._start("coordinator", [
            *_module("coordinator.cli"), "run", "--config", str(settings), "--broker-host", "127.0.0.1",
            "--deployment", str(self._deployment), "--deadline-ms", str(DEADLINE_MS), "--adaptive-deadline", "false",
            "--artifact-bytes-per-s", str(ARTIFACT_BYTES_PER_S),
        ])  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()

    def card(self, name: str, students: list[int], *words: object) -> str:
        """Admit a device; return its card."""
        target = self._work / f"card-{name}.toml"
        indices = ",".join(map(str, students))
        _run("coordinator.cli", "device", "add", name, "--students", indices, "--out", target, "--dir", self._folder,
             *words)  # fmt: skip
        return target.read_text()

    def login(self) -> BrokerSettings:
        """The coordinator's own certificate: nobody else may read features."""
        found = tomllib.loads((self._folder / "coordinator/coordinator.toml").read_text())["broker"]
        return BrokerSettings.model_validate({**found, "host": "127.0.0.1"})

    def deploy(self, version: int) -> str:
        """Sign the deployment as `version` and begin to bring it to the site; return its id."""
        bundle = self._work / f"version-{version}.nonn"
        _run("trainer.cli", "bundle", self._deployment, "--version", version, "--key", self._key, "--out", bundle)
        inspected = json.loads(_run("trainer.cli", "bundle", "inspect", bundle, "--json"))
        operator = self._folder / "clients/operator/operator.toml"
        self._start(f"deploy-{version}", [
            *_module("coordinator.cli"), "deploy", str(bundle), "--timeout", str(DEPLOY_TIMEOUT_S),
            "--config", str(operator), "--broker-host", "127.0.0.1",
        ])  # fmt: skip
        return str(inspected["deployment"])

    def _start(self, name: str, command: list[str]) -> None:
        environment = programs.tool_environment()
        with (self._work / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
            )


class HubSite(BootSite):
    """A site whose broker and coordinator are the device itself: nothing of them runs on this machine."""

    broker_host = f"{HUB}.local"

    def __enter__(self) -> Self:
        return self

    def start_agent(self, name: str, students: list[int]) -> None:
        """Admit a device and be it: nonn-agent on this machine, with its own certificate and the site's public keys."""
        card = tomllib.loads(self.card(name, students))
        folder = self._work / name
        folder.mkdir()
        for setting, file in IDENTITY.items():
            (folder / file).write_text(card["broker"][setting])
            (folder / file).chmod(0o600)
        (folder / "trusted-keys").write_text(card["updates"]["trusted_keys"])
        self._start(name, [
            *_module("edge_agent.cli"), "run", "--device", name, "--site", SITE,
            "--students", ",".join(map(str, students)), "--deployment", str(self._deployment),
            "--updates-store", str(folder / "store"), "--updates-trusted-keys", str(folder / "trusted-keys"),
            "--broker-host", "127.0.0.1", "--broker-port", str(card["broker"]["port"]),
            "--broker-ca-file", str(folder / IDENTITY["ca"]),
            "--broker-certificate-file", str(folder / IDENTITY["cert"]),
            "--broker-key-file", str(folder / IDENTITY["key"]),
        ])  # fmt: skip


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


def _run(module: str, *words: object) -> str:
    return programs.run([*_module(module), *map(str, words)])
