"""Puts the update part of an agent together: its store, what it opens at the start, and the updater."""

import logging
from collections.abc import Callable

from edge_agent.app import AgentApp
from edge_agent.console.cpu_targets import this_cpu
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.console.update_settings import trust_policy
from edge_agent.engine_choice import allowed
from edge_agent.model_store import ModelStore
from edge_agent.protocol.manifest import Artifact, FileEntry, Manifest, Student
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest, commit
from edge_agent.settings import AgentSettings
from edge_agent.student_slot import StudentSlot, choose_artifact, install_student
from edge_agent.updater import StudentPlan, Updater

_log = logging.getLogger("update")


def open_store(settings: AgentSettings) -> tuple[ModelStore, str]:
    """The device's store, after what a crash may have made necessary; and why it fell back, or ''."""
    updates = settings.updates
    if updates.store is None:
        raise ValueError("no store is set")
    budget = int(updates.disk_budget_mb * 1e6) if updates.disk_budget_mb is not None else None
    store = ModelStore(updates.store, budget_bytes=budget)
    if not store.record.active and settings.deployment is not None:
        _adopt(store, settings, open_deployment(settings.deployment))
    fell_back = store.count_start()
    if fell_back:
        _log.error("back to deployment %s: %s", store.record.active or "(none)", fell_back)
    return store, fell_back


def open_active(
    store: ModelStore, settings: AgentSettings
) -> tuple[DeploymentDirectory | None, list[StudentSlot], str]:
    """Open what answered last, or the one before where that is damaged: a file that rotted must not stop a device."""
    trouble = ""
    while (active := store.record.active) != "":
        try:
            deployment = store.disk.open(active)
            fixed = students_of(settings, deployment.manifest, ())
            return deployment, [_open(settings, deployment, index) for index in fixed], trouble
        except UserError as error:
            trouble = str(error)
            _log.error("deployment %s can't be opened: %s", active, error)
            store.lose()
    return None, [], trouble


def make_updater(
    settings: AgentSettings, store: ModelStore, app: AgentApp, in_use: Callable[[], None], fell_back: str
) -> Updater:
    """The extension that brings this device to what its site desires."""
    updates = settings.updates
    policy = trust_policy(updates.trusted_keys, updates.allow_unsigned, settings.broker.host)

    def entries(manifest: Manifest) -> list[FileEntry]:
        return needed_files(settings, manifest)

    def open_students(deployment: str, students: tuple[int, ...]) -> list[StudentSlot]:
        directory = store.disk.open(deployment)
        return [_open(settings, directory, index) for index in students]

    def students(manifest: Manifest) -> tuple[int, ...]:
        return students_of(settings, manifest, app.lanes.current.students)

    plan = StudentPlan(entries, open_students, students)
    topics = UpdateTopics(app.topics)
    return Updater(store, policy, plan, app.lanes, app.link, topics, settings.device, in_use, fell_back)


def students_of(settings: AgentSettings, manifest: Manifest, assigned: tuple[int, ...]) -> tuple[int, ...]:
    """The device's students that this deployment has."""
    wanted = assigned if settings.students == "auto" else settings.students
    return tuple(int(index) for index in wanted if int(index) < len(manifest.students))


def needed_files(settings: AgentSettings, manifest: Manifest) -> list[FileEntry]:
    """What this device fetches; set to auto it may be given any student, when nobody can send it one."""
    auto = settings.students == "auto"
    needed = range(len(manifest.students)) if auto else students_of(settings, manifest, ())
    if auto:
        chosen = [choose_artifact(manifest.students[i], settings.engine, settings.precision) for i in needed]
    else:  # all that it will time, to keep the fastest
        chosen = [a for i in needed for a in fitting_artifacts(manifest.students[i], settings)]
    return [manifest.golden_input, *chosen]


def fitting_artifacts(student: Student, settings: AgentSettings) -> list[Artifact]:
    """Artifacts for this CPU and these settings; UserError if there is none."""
    fitting = allowed(student.artifacts, this_cpu(), settings.engine, settings.precision)
    return [c.artifact for c in fitting if not c.refused] or [
        choose_artifact(student, settings.engine, settings.precision)
    ]


def _adopt(store: ModelStore, settings: AgentSettings, directory: DeploymentDirectory) -> None:
    manifest = directory.manifest
    store.adopt(directory, needed_files(settings, manifest))
    trusted = TrustedManifest(directory.id, manifest, b"", None)
    store.remember(commit(store.record.memory, trusted))
    _log.info("took over deployment %s from %s", directory.id, directory.path)


def _open(settings: AgentSettings, deployment: DeploymentDirectory, index: int) -> StudentSlot:
    return install_student(deployment, index, settings.engine, settings.precision, settings.num_threads)
