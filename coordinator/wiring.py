"""Puts a coordinator together: frame desk, assignment, requests, telemetry, journal."""

import time
from collections.abc import Callable

from coordinator.app import CoordinatorApp
from coordinator.deployment_shelf import DeploymentShelf
from coordinator.frame_journal import FrameJournal
from coordinator.heartbeat import Heartbeat
from coordinator.requests import ClassifyRequests
from coordinator.self_report import SelfReport
from coordinator.settings import CoordinatorSettings
from coordinator.steering import Steering
from coordinator.updates_wiring import add_updates
from edge_agent.console.deployment_directory import DeploymentDirectory
from edge_agent.console.service_notifier import ServiceNotifier
from edge_agent.console.worker import Worker
from edge_agent.protocol.head import MergeHead
from edge_agent.protocol.link import Link, Outgoing
from edge_agent.protocol.prediction_message import PredictionMessage


def build_coordinator(
    settings: CoordinatorSettings,
    deployment: DeploymentDirectory,
    head: MergeHead,
    link: Link | None = None,
    clock: Callable[[], float] = time.monotonic,
    shelf: DeploymentShelf | None = None,
) -> CoordinatorApp:
    """A coordinator ready to run, with the parts that its settings ask for."""
    app = CoordinatorApp(settings, deployment, head, link, clock)
    if settings.journal is not None:
        app.extend(_journal(app, clock))
    steering = None
    if settings.assign:
        steering = Steering(app.roster, app.topics, app.publish, clock, settings.away_s, settings.deadline_ms / 1000)
        steering.use(deployment.id, deployment.manifest)
        app.extend(steering)
    if shelf is not None:

        def settled(active: DeploymentDirectory) -> None:
            if steering is not None:
                steering.use(active.id, active.manifest)

        add_updates(app, shelf, settled)
    if settings.requests:
        app.extend(_requests(app))
    topic = app.topics.coordinator(settings.coordinator, "telemetry")
    app.extend(Heartbeat(lambda: app.desk, ServiceNotifier()))
    app.extend(SelfReport(topic, app.session, lambda: app.desk, app.publish, settings.telemetry_s, clock()))
    return app


def _requests(app: CoordinatorApp) -> ClassifyRequests:
    worker = Worker("decode")
    app.watch(worker.ready_fd)
    size = app.deployment.manifest.input
    shape = (size.height, size.width, size.channels)
    return ClassifyRequests(app.request_source, app.topics, shape, app.publish, app.open_frame, app.session, worker)


def _journal(app: CoordinatorApp, clock: Callable[[], float]) -> FrameJournal:
    def answered(prediction: PredictionMessage, publish: bool) -> None:
        app.desk.close(prediction, clock())
        if publish:
            app.publish(Outgoing(app.topics.prediction(prediction.source), prediction.encode(), qos=1))
        if prediction.reason == "restart" and publish:
            app.counts["frames_abandoned_restart"] += 1

    settings = app.settings
    capacity = settings.max_open_frames
    if settings.journal is None:
        raise ValueError("no journal file is set")
    path, name = settings.journal, settings.coordinator
    journal = FrameJournal(path, 2 * capacity, name, lambda: app.deployment.id, answered)
    app.before_answer = journal.before_answer
    return journal
