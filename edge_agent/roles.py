"""Puts an agent together: its students, fixed or assigned, and its camera."""

import logging
from collections.abc import Callable, Sequence

from edge_agent.app import AgentApp
from edge_agent.assignment_follower import AssignmentFollower
from edge_agent.camera_role import CameraRole
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Worker
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot, install_student

_log = logging.getLogger("agent")


def build_agent(settings: AgentSettings) -> AgentApp:
    """An agent ready to run; UserError says what is wrong with its deployment or camera."""
    store = None
    if settings.updates.store is not None and settings.students:
        from edge_agent.managed_agent import make_updater, open_active, open_store

        store, fell_back = open_store(settings)
        deployment, slots, trouble = open_active(store, settings)
    else:
        deployment = open_deployment(settings.deployment) if settings.deployment is not None else None
        fixed: Sequence[int] = () if settings.students == "auto" else settings.students
        slots = [_open(settings, deployment, index) for index in fixed] if deployment is not None else []
    app = AgentApp(settings, deployment.id if deployment is not None else "", slots)
    follower = None
    if settings.students == "auto" and (deployment is not None or store is not None):
        disk = store.disk if store is not None else None
        follower = _follower(settings, lambda: disk.open(app.deployment_id) if disk else deployment, app)
        app.extend(follower)
    if store is not None:

        def in_use() -> None:
            app.say_what_runs()
            if follower is not None:
                follower.replace(app.lanes.current.slots)

        app.extend(make_updater(settings, store, app, in_use, fell_back or trouble))
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
    slot = install_student(deployment, index, settings.engine, settings.precision, settings.num_threads)
    _log.info(
        "student %d: %s on %s, self-test passed (off by %.3g, allowed %.3g)", index, slot.artifact.file,
        slot.runtime.engine_version, slot.selftest_error, slot.student.golden.tolerance,
    )  # fmt: skip
    return slot


def _follower(
    settings: AgentSettings, deployment: Callable[[], DeploymentDirectory | None], app: AgentApp
) -> AssignmentFollower:
    def open_slot(index: int) -> StudentSlot:
        directory = deployment() if app.deployment_id else None
        if directory is None:
            raise UserError("no deployment yet")
        return _open(settings, directory, index)

    def use(slots: Sequence[StudentSlot]) -> None:
        app.refused_students = follower.refused
        app.use(app.deployment_id, slots)

    topic = app.topics.node(settings.device, "assignment")
    worker = Worker("assignment")
    app.watch(worker.ready_fd)
    follower = AssignmentFollower(topic, open_slot, use, settings.max_students, worker.submit, worker)
    return follower
