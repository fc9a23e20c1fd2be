"""Puts the update part of a coordinator together: its shelf of deployments, the artifact server, the steward."""

import time
from collections.abc import Callable

from coordinator.app import CoordinatorApp
from coordinator.artifact_server import ArtifactServer
from coordinator.deployment_shelf import DeploymentShelf
from coordinator.rollout_steward import RolloutSteward
from coordinator.settings import CoordinatorSettings
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import ExitCode, UserError
from edge_agent.console.update_settings import trust_policy
from edge_agent.console.worker import Worker
from edge_agent.protocol.update_topics import UpdateTopics


def open_shelf(settings: CoordinatorSettings) -> DeploymentShelf | None:
    """The store of a coordinator that takes updates; None for a fixed deployment."""
    updates = settings.updates
    if updates.store is None:
        return None
    budget = int(updates.disk_budget_mb * 1e6) if updates.disk_budget_mb is not None else None
    shelf = DeploymentShelf(updates.store, budget_bytes=budget)
    if not shelf.record.active:
        if settings.deployment is None:
            message = f"{updates.store} has no deployment yet: expected --deployment with the first one"
            raise UserError(message, ExitCode.CONFIGURATION)
        shelf.adopt(open_deployment(settings.deployment), time.time_ns() // 1000)
    return shelf


def first_deployment(settings: CoordinatorSettings, shelf: DeploymentShelf | None) -> DeploymentDirectory:
    """What the coordinator answers with at its start."""
    if shelf is not None:
        return shelf.disk.open(shelf.record.active)
    if settings.deployment is None:
        raise UserError("deployment: expected --deployment or --updates-store", ExitCode.CONFIGURATION)
    return open_deployment(settings.deployment)


def add_updates(
    app: CoordinatorApp, shelf: DeploymentShelf, settled: Callable[[DeploymentDirectory], None]
) -> RolloutSteward:
    """Plug in what updates need."""
    settings = app.settings
    updates = settings.updates
    policy = trust_policy(updates.trusted_keys, updates.allow_unsigned, settings.broker.host)
    worker = Worker("updates")
    app.watch(worker.ready_fd)
    topics = UpdateTopics(app.topics)
    steward = RolloutSteward(app, shelf, policy, worker, settings.trial_s, settled)
    app.extend(steward)
    app.extend(ArtifactServer(app.link, topics, settings.coordinator, shelf.find, settings.artifact_bytes_per_s))
    return steward
