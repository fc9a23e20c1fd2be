"""The coordinator of a boot test, started as an operator starts it, and the updates that he signs and deploys."""

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from firmware_images import programs
from firmware_images.boot_authority import BootAuthority, Identity
from firmware_images.boot_site import SITE

# The two students of the example are 440 KB: half a minute, in which a plug can be pulled.
ARTIFACT_BYTES_PER_S = 15_000
# An emulated device takes seconds for a frame where a Pi takes milliseconds.
DEADLINE_MS = 60_000
# An emulated device takes minutes to be there at all.
DEPLOY_TIMEOUT_S = 7200


class BootCoordinator:
    """nonn-coordinator on this machine; `deployment`: what it starts with."""

    def __init__(self, folder: Path, deployment: Path, port: int, authority: BootAuthority, issued: Identity) -> None:
        self._folder, self._deployment = folder, deployment.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        self._key = folder / "release.key"
        _run("trainer.cli", "bundle", "keygen", self._key, "--comment", "boot test")
        self.trusted_keys = (folder / "release.key.pub").read_text()
        broker = {
            "host": "127.0.0.1",
            "port": port,
            "ca_file": str(authority.certificate),
            "certificate_file": str(issued.certificate),
            "key_file": str(issued.key),
        }
        table = "\n[broker]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in broker.items())
        self._client_settings = folder / "client.toml"
        self._client_settings.write_text(f'site = "{SITE}"\n{table}')
        self._settings = folder / "coordinator.toml"
        self._settings.write_text(
            f'deadline_ms = {DEADLINE_MS}\nadaptive_deadline = false\nsite = "{SITE}"\ndeployment = {json.dumps(str(self._deployment))}\n'
            f"artifact_bytes_per_s = {ARTIFACT_BYTES_PER_S}\n"
            f'\n[updates]\nstore = "{folder}/store"\ntrusted_keys = "{self._key}.pub"\n{table}'
        )
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._start("coordinator", "run", "--config", self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
            process.wait()

    def deploy(self, version: int) -> str:
        """Sign the deployment as `version` and begin to bring it to the site; return its id."""
        bundle = self._folder / f"version-{version}.nonn"
        _run("trainer.cli", "bundle", self._deployment, "--version", version, "--key", self._key, "--out", bundle)
        inspected = json.loads(_run("trainer.cli", "bundle", "inspect", bundle, "--json"))
        self._start(
            f"deploy-{version}", "deploy", bundle, "--timeout", DEPLOY_TIMEOUT_S, "--config", self._client_settings
        )
        return str(inspected["deployment"])

    def _start(self, name: str, *words: object) -> None:
        command = [sys.executable, "-m", "coordinator.cli", *map(str, words)]
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))


def _run(module: str, *words: object) -> str:
    return programs.run([sys.executable, "-m", module, *map(str, words)])
