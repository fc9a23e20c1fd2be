"""What the parts of a device's update share."""

import logging
from dataclasses import dataclass

from edge_agent.console.worker import Worker
from edge_agent.model_store import ModelStore
from edge_agent.protocol.update_messages import DesiredMessage
from edge_agent.protocol.update_trust import TrustedManifest
from edge_agent.student_lanes import StudentLanes
from edge_agent.update_report import UpdateReport

_log = logging.getLogger("update")


@dataclass
class UpdateContext:
    """Store, worker, lanes and report of one device; what its site desires, and the last manifest judged good."""

    store: ModelStore
    worker: Worker
    lanes: StudentLanes
    report: UpdateReport
    desired: DesiredMessage | None = None
    trusted: TrustedManifest | None = None

    def stored(self, result: Exception | None) -> None:
        """For jobs that write the store."""
        if result is not None:
            # The disk does not take the record: answers go on, and a reboot finds the old record.
            _log.error("the store can't be written: %s", result)
