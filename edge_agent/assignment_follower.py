"""Runs the students that the coordinator assigns to this device."""

import logging
from collections.abc import Callable, Sequence

from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.fleet_messages import NodeAssignment
from edge_agent.protocol.json_message import decode_json
from edge_agent.protocol.link import Extension, Message
from edge_agent.student_slot import StudentSlot

_log = logging.getLogger("agent")


class AssignmentFollower(Extension):
    """Opens and closes students as `node/<device>/assignment` says; `use` hands them to the loop."""

    def __init__(
        self,
        topic: str,
        open_slot: Callable[[int], StudentSlot],
        use: Callable[[Sequence[StudentSlot]], None],
        most: int,
    ) -> None:
        self._topic = topic
        self._open_slot = open_slot
        self._use = use
        self._most = most
        self._slots: dict[int, StudentSlot] = {}
        self.refused: tuple[int, ...] = ()

    def subscriptions(self) -> Sequence[tuple[str, int]]:
        """Own assignment, retained."""
        return [(self._topic, 1)]

    def receive(self, message: Message) -> bool:
        """Open what is new, then close what is gone: answers go on while a student loads elsewhere."""
        if message.topic != self._topic:
            return False
        if not message.payload:
            return True  # purged: keep what runs until told otherwise
        self._follow(decode_json(NodeAssignment, message.payload).students[: self._most])
        return True

    def replace(self, slots: Sequence[StudentSlot]) -> None:
        """The same students of another deployment run now; who put them there closed the old ones."""
        self._slots = {slot.student.index: slot for slot in slots}

    def _follow(self, wanted: Sequence[int]) -> None:
        if set(wanted) == set(self._slots) and not self.refused:
            return
        refused = []
        slots: dict[int, StudentSlot] = {}
        for index in sorted(set(wanted)):
            slot = self._slots.get(index) or self._opened(index)
            if slot is None:
                refused.append(index)
            else:
                slots[index] = slot
        gone = [slot for index, slot in self._slots.items() if index not in slots]
        self._slots, self.refused = slots, tuple(refused)
        _log.info("assigned students: %s", ", ".join(map(str, slots)) or "none")
        self._use(list(slots.values()))
        for slot in gone:
            slot.runtime.close()

    def _opened(self, index: int) -> StudentSlot | None:
        try:
            return self._open_slot(index)
        except UserError as error:
            _log.error("student %d: %s", index, error)
        except MemoryError:
            _log.error("student %d: no memory left for it", index)
        return None
