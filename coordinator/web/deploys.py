"""A bundle, or the order to go back, from a page to the site: one at a time, each in a thread of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coordinator.deploy_client import CanaryRules, DeployClient, parse_order
from coordinator.settings import CoordinatorSettings
from coordinator.web.uploads import Refusal
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.protocol.bundle import Bundle, parse_bundle
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.update_messages import DeploymentId, Id, RolloutPhase

MAX_BUNDLE_BYTES = 64_000_000  # eight students of 2 MB in three precisions; it is held in memory
MAX_ORDER_BYTES = 16_384
BUNDLE_TIMEOUT_S = 180.0  # 64 MB over a Wi-Fi that does 3 Mbit/s
STATUS_PATIENCE_S = 5.0
# Once the coordinator has the files, nobody needs this client any more.
FETCHED: tuple[RolloutPhase, ...] = ("canary", "preparing", "switching", "complete", "reverting", "failed")
_log = logging.getLogger("dashboard")


class DeployOptions(BaseModel):
    """The query of /api/deploy and /api/rollback."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    canary: tuple[Id, ...] = Field(default=(), max_length=1024)
    frames: int = Field(default=100, ge=1, le=1_000_000)
    agreement: float = Field(default=0.9, ge=0, le=1)
    latency_ratio: float = Field(default=1.5, gt=0, le=1000)
    timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    to: DeploymentId | None = None


def parse_options(query: Sequence[tuple[str, str]]) -> DeployOptions:
    """Read a query; Refusal 400 names the part that does not fit.

    >>> parse_options([("canary", "pi-7"), ("canary", "pi-8"), ("frames", "60")]).canary
    ('pi-7', 'pi-8')
    """
    given: dict[str, Any] = {name: value for name, value in query if name != "canary"}
    given["canary"] = tuple(value for name, value in query if name == "canary")
    try:
        return DeployOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Refusal(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


class DeployDesk:
    """Takes up requests for the site's coordinator, as `nonn-coordinator deploy` and `rollback` do."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        self._settings = settings
        self._busy = threading.Lock()

    @property
    def takes_updates(self) -> bool:
        """The coordinator has a store for deployments."""
        return self._settings.updates.store is not None

    async def deploy(self, content: bytes, options: DeployOptions) -> Mapping[str, Any]:
        """Begin to bring a bundle to the site; the rest is told by the rollout's status."""
        self._check_that_updates_are_taken()
        try:
            bundle = await asyncio.to_thread(parse_bundle, content)
        except ManifestError as error:
            raise Refusal(415, str(error)) from None
        rules = CanaryRules(options.canary, options.frames, options.agreement, options.latency_ratio)
        target = await self._begin(bundle, lambda client: client.deploy(rules, options.timeout_s))
        return {"deployment": target, "name": bundle.manifest.name, "version": bundle.manifest.version}

    async def roll_back(self, content: bytes, options: DeployOptions) -> Mapping[str, Any]:
        """Begin to go back: with a signed order, or without one where the site takes unsigned deployments."""
        self._check_that_updates_are_taken()
        try:
            order = parse_order(content) if content else None
        except UserError as error:
            raise Refusal(415, str(error)) from None

        def ask(client: DeployClient) -> str:
            return client.roll_back(order or client.rollback_order(None, options.to), options.timeout_s)

        return {"deployment": await self._begin(None, ask)}

    def _check_that_updates_are_taken(self) -> None:
        if not self.takes_updates:
            raise Refusal(409, "this coordinator takes no updates; expected one that runs with --updates-store")

    async def _begin(self, bundle: Bundle | None, ask: Callable[[DeployClient], str]) -> str:
        """Deployment id once the coordinator has taken the request up."""
        if not self._busy.acquire(blocking=False):
            raise Refusal(409, "another deployment is on its way to the coordinator; wait for it")
        begun: Future[str] = Future()
        threading.Thread(target=self._serve, args=(bundle, ask, begun), name="deploy", daemon=True).start()
        try:
            return await asyncio.wrap_future(begun)
        except UserError as error:
            gone = error.exit_code == ExitCode.UNAVAILABLE
            raise Refusal(503 if gone else 409, str(error)) from None

    def _serve(self, bundle: Bundle | None, ask: Callable[[DeployClient], str], begun: "Future[str]") -> None:
        """In a thread: ask, then serve the files until the coordinator has them all."""
        try:
            client = DeployClient(self._settings, bundle)
            try:
                client.wait_for_status(STATUS_PATIENCE_S)
                target = ask(client)
                _log.info("deployment %s was asked for on the dashboard", target)
                begun.set_result(target)
                client.follow(target, FETCHED, lambda _: None)
            finally:
                client.close()
        except Exception as error:  # noqa: BLE001 (the page, or else the log, is told; answers go on)
            if begun.done():
                _log.warning("the deployment from the dashboard: %s", error)
            else:
                begun.set_exception(error)
        finally:
            self._busy.release()
