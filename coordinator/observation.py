"""Plugs what looks on into the live loop: metrics, labels, dashboard."""

from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.accuracy import LabelBook
from coordinator.app import CoordinatorApp
from coordinator.metrics import CoordinatorMetrics
from coordinator.web.live_feed import LiveFeed
from coordinator.web.snapshot import ShownDeployment, Snapshot
from edge_agent.protocol.head import MergeHead


@contextmanager
def observed(app: CoordinatorApp, head: MergeHead) -> "Iterator[Observation | None]":
    """Dashboard and metrics around a run of the coordinator, if its settings name a port."""
    if app.settings.dashboard.port is None:
        yield None
        return
    observation = Observation(app, head)
    observation.server.start()
    try:
        yield observation
    finally:
        observation.server.stop()


class Observation:
    """Metrics, labels and web server of one coordinator."""

    def __init__(self, app: CoordinatorApp, head: MergeHead) -> None:
        # The web stack costs 20 MB and half a second: only coordinators that serve pages load it.
        from coordinator.web.server import WebServer

        settings = app.settings
        self._latest: Snapshot | None = None
        self._deployments = {app.deployment.id: ShownDeployment(app.deployment.id, app.deployment.manifest, head)}
        metrics = CoordinatorMetrics(
            settings.site, settings.coordinator, lambda: app.counts, lambda: self._latest, self._name_of
        )
        labels = LabelBook(app.topics)
        self.server = WebServer(settings, self._deployments.get, metrics.text)
        feed = LiveFeed(
            app.topics,
            app.roster,
            labels,
            self._offer,
            self.server.watched,
            lambda: app.connected,
            app.deployment.id,
        )
        for extension in (metrics, labels, feed):
            app.extend(extension)

    def use(self, deployment: ShownDeployment) -> None:
        """Know another deployment, before its first answer."""
        # Two are in use during a switch; older ones have no answers left to explain.
        while len(self._deployments) >= 4:
            self._deployments.pop(next(iter(self._deployments)))
        self._deployments[deployment.id] = deployment

    def _offer(self, snapshot: Snapshot) -> None:
        self._latest = snapshot
        self.server.offer(snapshot)

    def _name_of(self, deployment: str) -> str:
        shown = self._deployments.get(deployment)
        return shown.manifest.name if shown else ""
