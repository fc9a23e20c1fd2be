"""Plugs what looks on into the live loop: metrics, labels, dashboard."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from coordinator.accuracy import LabelBook
from coordinator.app import CoordinatorApp
from coordinator.deployment_shelf import DeploymentShelf, open_head
from coordinator.home_assistant import HomeAssistant
from coordinator.home_assistant_entities import Site
from coordinator.metrics import CoordinatorMetrics
from coordinator.web.live_feed import LiveFeed
from coordinator.web.snapshot import ShownDeployment, Snapshot
from edge_agent import __version__
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Worker
from edge_agent.protocol.errors import ManifestError
from edge_agent.protocol.filter_edges import parse_edges
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.update_topics import UpdateTopics

KEPT_DEPLOYMENTS = 4  # two are in use during a switch
_log = logging.getLogger("dashboard")


@contextmanager
def observed(
    app: CoordinatorApp, head: MergeHead, shelf: DeploymentShelf | None = None
) -> "Iterator[Observation | None]":
    """Home Assistant, dashboard and metrics around a run of the coordinator, as its settings ask for them."""
    if app.settings.home_assistant.enabled:
        app.extend(_home_assistant(app))
    if app.settings.dashboard.port is None:
        yield None
        return
    observation = Observation(app, head, shelf)
    observation.server.start()
    try:
        yield observation
    finally:
        observation.server.stop()


def _home_assistant(app: CoordinatorApp) -> HomeAssistant:
    settings = app.settings
    worker = Worker("pictures")
    app.watch(worker.ready_fd)
    site = Site(app.topics, settings.coordinator, settings.home_assistant.prefix, __version__)
    return HomeAssistant(site, app.roster, app.publish, settings.home_assistant.picture_s, worker)


class Observation:
    """Metrics, labels and web server of one coordinator."""

    def __init__(self, app: CoordinatorApp, head: MergeHead, shelf: DeploymentShelf | None) -> None:
        # The web stack costs 20 MB and half a second: only coordinators that serve pages load it.
        from coordinator.web.server import WebServer

        settings = app.settings
        self._latest: Snapshot | None = None
        self._shelf = shelf
        self._deployments = {app.deployment.id: _shown(app.deployment, head)}
        labels = LabelBook(app.topics)
        metrics = CoordinatorMetrics(
            settings.site, settings.coordinator, lambda: app.counts, lambda: self._latest, self._name_of, labels
        )
        self.server = WebServer(settings, self._find, metrics.text)
        feed = LiveFeed(
            app.topics,
            app.roster,
            labels,
            self._offer,
            self.server.watched,
            lambda: app.connected,
            app.deployment.id,
            UpdateTopics(app.topics).rollout(settings.coordinator),
        )
        for extension in (metrics, labels, feed):
            app.extend(extension)

    def _offer(self, snapshot: Snapshot) -> None:
        self._latest = snapshot
        self.server.offer(snapshot)

    def _find(self, deployment: str) -> ShownDeployment | None:
        """A deployment of answers: the first one, or one that an update brought. In the web server's thread."""
        shown = self._deployments.get(deployment)
        if shown is None and self._shelf is not None:
            try:
                directory = self._shelf.disk.open(deployment)
                shown = _shown(directory, open_head(directory))
            except UserError:
                return None  # dropped meanwhile; its last answers are shown without explanation
            while len(self._deployments) >= KEPT_DEPLOYMENTS:
                self._deployments.pop(next(iter(self._deployments)))
            self._deployments[deployment] = shown
        return shown

    def _name_of(self, deployment: str) -> str:
        shown = self._find(deployment)
        return shown.manifest.name if shown else ""


def _shown(directory: DeploymentDirectory, head: MergeHead) -> ShownDeployment:
    entry, filters = directory.manifest.graph, directory.manifest.filters
    try:
        edges = parse_edges(directory.read(entry), filters) if entry is not None else ()
    except (ManifestError, UserError) as error:
        _log.warning("deployment %s: %s; shown without its graph", directory.id, error)
        edges = ()  # it is only a picture: answers do not need it
    return ShownDeployment(directory.id, directory.manifest, head, edges)
