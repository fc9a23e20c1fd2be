"""Puts the update part of an agent together: its store, what it opens at the start, and the updater."""

import logging
from collections.abc import Callable

from edge_agent.app import AgentApp
from edge_agent.console.deployment_directory import DeploymentDirectory, open_deployment
from edge_agent.console.exit_codes import UserError
from edge_agent.console.update_settings import trust_policy
from edge_agent.engine_memory import fitting_artifacts, same_kind
from edge_agent.model_store import ModelStore
from edge_agent.protocol.manifest import Artifact, FileEntry, Manifest, Student
from edge_agent.protocol.update_topics import UpdateTopics
from edge_agent.protocol.update_trust import TrustedManifest, commit
from edge_agent.settings import AgentSettings
from edge_agent.standby_preparation import StudentPlan
from edge_agent.student_slot import StudentSlot, choose_artifact, install_student
from edge_agent.updater import Updater

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

    def entries(manifest: Manifest, everything: bool) -> list[FileEntry]:
        return needed_files(settings, manifest, None if everything else _active(store))

    def open_students(deployment: str, students: tuple[int, ...]) -> list[StudentSlot]:
        directory = store.disk.open(deployment)
        return [_open(settings, directory, index) for index in students]

    def students(manifest: Manifest) -> tuple[int, ...]:
        return students_of(settings, manifest, app.lanes.current.students)

    plan = StudentPlan(entries, open_students, students)
    topics = UpdateTopics(app.topics)
    return Updater(
        store, policy, plan, app.lanes, app.link, topics, settings.device, settings.proof_s, in_use, fell_back
    )


def students_of(settings: AgentSettings, manifest: Manifest, assigned: tuple[int, ...]) -> tuple[int, ...]:
    """The device's students that this deployment has."""
    wanted = assigned if settings.students == "auto" else settings.students
    return tuple(int(index) for index in wanted if int(index) < len(manifest.students))


def needed_files(
    settings: AgentSettings, manifest: Manifest, before: DeploymentDirectory | None = None
) -> list[FileEntry]:
    """What this device fetches of a deployment; set to auto it may be given any student, when nobody can send it one.

    With `before`, which ran here: of each network known from there, only the artifact of the kind that was chosen.
    """
    if settings.students == "auto":
        smallest = [choose_artifact(student, settings.engine, settings.precision) for student in manifest.students]
        return [manifest.golden_input, *smallest]
    students = [manifest.students[index] for index in students_of(settings, manifest, ())]
    return [manifest.golden_input, *(a for student in students for a in _to_fetch(settings, student, before))]


def _to_fetch(settings: AgentSettings, student: Student, before: DeploymentDirectory | None) -> list[Artifact]:
    """The kind that was chosen before, else all that will be timed; UserError if nothing runs here."""
    wanted = settings.engine, settings.precision
    known = same_kind(before, student, *wanted, settings.num_threads) if before is not None else None
    if known is not None:
        return [known]
    return fitting_artifacts(student, *wanted) or [choose_artifact(student, *wanted)]


def _active(store: ModelStore) -> DeploymentDirectory | None:
    """The deployment that answers; None on a fresh device, and where it can't be read any more."""
    try:
        return store.active
    except UserError:
        return None


def _adopt(store: ModelStore, settings: AgentSettings, directory: DeploymentDirectory) -> None:
    manifest = directory.manifest
    store.adopt(directory, needed_files(settings, manifest))
    trusted = TrustedManifest(directory.id, manifest, b"", None)
    store.remember(commit(store.record.memory, trusted))
    _log.info("took over deployment %s from %s", directory.id, directory.path)


def _open(settings: AgentSettings, deployment: DeploymentDirectory, index: int) -> StudentSlot:
    # Of a kind that was chosen before, one file may be all that was fetched; set to auto, it always is.
    alone = settings.students != "auto"
    return install_student(deployment, index, settings.engine, settings.precision, settings.num_threads, alone)
