"""Runs the students that the coordinator assigns to this device."""

import logging
from collections.abc import Callable, Sequence

from edge_agent.console.exit_codes import UserError
from edge_agent.console.worker import Done, Job, Worker
from edge_agent.protocol.fleet_messages import NodeAssignment
from edge_agent.protocol.json_message import decode_json
from edge_agent.protocol.link import Extension, Message
from edge_agent.student_slot import StudentSlot

_log = logging.getLogger("agent")
Opened = dict[int, StudentSlot | None]  # None: it could not be loaded


class AssignmentFollower(Extension):
    """Opens and closes students as `node/<device>/assignment` says; `use` hands them to the loop.

    Loading takes seconds on a Pi: it is `submit`ted to a worker, and the students that run go on answering.
    """

    def __init__(
        self,
        topic: str,
        open_slot: Callable[[int], StudentSlot],
        use: Callable[[Sequence[StudentSlot]], None],
        most: int,
        submit: Callable[[Job, Done], None],
        worker: Worker | None = None,
    ) -> None:
        self._topic = topic
        self._open_slot = open_slot
        self._use = use
        self._most = most
        self._submit = submit
        self._worker = worker
        self._slots: dict[int, StudentSlot] = {}
        self._wanted: frozenset[int] | None = None  # nothing was assigned yet
        self._loading = False
        self._replaced = 0  # by students of another deployment, so often
        self.refused: tuple[int, ...] = ()

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Own assignment, retained."""
        return [(self._topic, 1)]

    def receive(self, message: Message) -> bool:
        """Open what is new, then close what is gone: answers go on while a student loads."""
        if message.topic != self._topic:
            return False
        if not message.payload:
            return True  # purged: keep what runs until told otherwise
        self._wanted = frozenset(decode_json(NodeAssignment, message.payload).students[: self._most])
        self._follow()
        return True

    def tick(self, now: float) -> None:  # noqa: ARG002 (the worker has its own pace)
        """Take what the worker has loaded."""
        if self._worker is not None:
            self._worker.deliver()

    def replace(self, slots: Sequence[StudentSlot]) -> None:
        """The same students of another deployment run now; who put them there closed the old ones."""
        self._slots = {slot.student.index: slot for slot in slots}
        self._replaced += 1
        self._follow()

    def _follow(self) -> None:
        wanted, replaced = self._wanted, self._replaced
        if self._loading or wanted is None or (wanted == set(self._slots) and not self.refused):
            return  # while loading: the newest assignment is looked at when that is done
        missing = sorted(wanted - set(self._slots))
        self._loading = True
        self._submit(
            lambda: {index: self._opened(index) for index in missing},
            lambda opened: self._loaded(opened, wanted, replaced),
        )

    def _loaded(self, opened: Opened | Exception, wanted: frozenset[int], replaced: int) -> None:
        self._loading = False
        if isinstance(opened, Exception):
            raise opened
        if replaced != self._replaced:  # these are students of a deployment that has gone meanwhile
            _close([slot for slot in opened.values() if slot is not None])
            self._follow()
            return
        there = self._slots | {index: slot for index, slot in opened.items() if slot is not None}
        self.refused = tuple(index for index, slot in opened.items() if slot is None)
        self._slots = {index: slot for index, slot in sorted(there.items()) if index in wanted}
        _log.info("assigned students: %s", ", ".join(map(str, self._slots)) or "none")
        self._use(list(self._slots.values()))
        _close([slot for index, slot in there.items() if index not in self._slots])
        if wanted != self._wanted:
            self._follow()

    def _opened(self, index: int) -> StudentSlot | None:
        try:
            return self._open_slot(index)
        except UserError as error:
            _log.error("student %d: %s", index, error)
        except MemoryError:
            _log.error("student %d: no memory left for it", index)
        return None


def _close(slots: Sequence[StudentSlot]) -> None:
    for slot in slots:
        slot.runtime.close()
