"""report-problems: a device that cannot become an agent tells its site why, for as long as it is on."""

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from edge_agent import __version__
from edge_agent.console.exit_codes import ExitCode
from edge_agent.console.log import start_logging
from edge_agent.console.program import StopFlag, run_program
from edge_agent.device_problems import read_problems
from edge_agent.protocol.broker import BrokerSettings
from edge_agent.protocol.link import Connected, Message, Outgoing
from edge_agent.protocol.mqtt_link import MqttLink
from edge_agent.protocol.status import NodeInfo, NodeState, says_alive
from edge_agent.protocol.topics import SiteTopics

REPORT_FILE = Path("/run/nonn-edge/report/report.json")
PROBLEMS_FILE = Path("/run/nonn-edge/problems.txt")
POLL_S = 1.0


class Report(BaseModel):
    """Who reports, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    device: str
    site: str
    broker: BrokerSettings


def main() -> int:
    """Entry point: stays connected until stopped, so that the will says when the device is gone."""
    stop = StopFlag()
    stop.listen()
    start_logging("text", "info")
    report = Report.model_validate_json(REPORT_FILE.read_bytes())
    return run_program(lambda: report_problems(report, PROBLEMS_FILE, lambda: stop.stopped))


def report_problems(report: Report, problems: Path, stopped: Callable[[], bool]) -> int:
    """Publish a birth that runs nothing and says why."""
    topics = SiteTopics(report.site)
    session = time.time_ns() // 1000

    def state(word: str) -> Outgoing:
        birth = NodeState.model_validate({"state": word, "session": session})
        return Outgoing(topics.node(report.device, "state"), birth.encode(), 1, retain=True)

    told = NodeInfo(
        session=session, agent_version=__version__, deployment="", students=(), machine=platform.machine(),
        python=platform.python_version(), problems=read_problems(problems),
    )  # fmt: skip
    info = Outgoing(topics.node(report.device, "info"), told.encode(), 1, retain=True)
    online, offline = state("online"), state("offline")
    link = MqttLink(report.broker, f"nonn-agent-{report.site}-{report.device}", [(online.topic, 1)], will=offline)
    while not stopped():
        for event in link.poll(POLL_S):
            late_will = isinstance(event, Message) and not says_alive(event.payload)
            if isinstance(event, Connected) or late_will:
                link.publish(info)
                link.publish(online)
    link.close([offline])
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
