"""Puts an agent together: its students, fixed or assigned, and its camera."""

import logging
from collections.abc import Sequence

from edge_agent.app import AgentApp
from edge_agent.assignment_follower import AssignmentFollower
from edge_agent.camera_role import CameraRole
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot, open_student

_log = logging.getLogger("agent")


def build_agent(settings: AgentSettings) -> AgentApp:
    """An agent ready to run; UserError says what is wrong with its deployment or camera."""
    deployment = open_deployment(settings.deployment) if settings.deployment is not None else None
    fixed: Sequence[int] = () if settings.students == "auto" else settings.students
    slots = [_open(settings, deployment, index) for index in fixed] if deployment is not None else []
    app = AgentApp(settings, deployment.id if deployment is not None else "", slots)
    if settings.students == "auto" and deployment is not None:
        app.extend(_follower(settings, deployment, app))
    if settings.camera.source is not None:
        shape = None
        if deployment is not None:
            shape = (
                deployment.manifest.input.height,
                deployment.manifest.input.width,
                deployment.manifest.input.channels,
            )
        app.extend(CameraRole(settings.camera, app.topics, app.publish, app.counts, shape, app.watch))
    return app


def _open(settings: AgentSettings, deployment: DeploymentDirectory, index: int) -> StudentSlot:
    slot = open_student(deployment, index, settings.engine, settings.precision, settings.num_threads)
    _log.info(
        "student %d: %s on %s, self-test off by %.3g", index, slot.artifact.file,
        slot.runtime.engine_version, slot.selftest_error,
    )  # fmt: skip
    return slot


def _follower(settings: AgentSettings, deployment: DeploymentDirectory, app: AgentApp) -> AssignmentFollower:
    def use(slots: Sequence[StudentSlot]) -> None:
        app.refused_students = follower.refused
        app.use(app.deployment_id, slots)

    topic = app.topics.node(settings.device, "assignment")
    follower = AssignmentFollower(topic, lambda index: _open(settings, deployment, index), use, settings.max_students)
    return follower
