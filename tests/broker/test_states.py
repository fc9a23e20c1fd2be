"""Who is alive is right at all times: births, wills, stale wills, broker restarts."""

import json
import signal
from typing import Any

from edge_agent.protocol.status import NodeInfo, NodeState, decode_status


def test_birth_will_and_return(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    state = watcher.topics.node("pi-1", "state")
    agent = stage.agent(broker.port, "pi-1", "0,2")
    born = watcher.until_state(state, "online")
    info = decode_status(NodeInfo, watcher.on(watcher.topics.node("pi-1", "info"))[-1].payload)
    assert [student.student for student in info.students] == [0, 2]
    assert info.session == born["session"]
    assert info.mqtt == "5"

    agent.end(signal.SIGKILL)
    assert watcher.until_state(state, "offline")["session"] == born["session"]
    late = stage.watcher(broker.port)
    assert late.latest(state) == {"v": 1, "state": "offline", "session": born["session"]}
    assert late.on(state)[0].retain

    again = stage.agent(broker.port, "pi-1", "0,2")
    assert int(str(watcher.until_state(state, "online")["session"])) > int(str(born["session"]))
    assert again.end(signal.SIGTERM) == 0
    watcher.until_state(state, "offline")


def test_the_info_says_which_artifact_was_chosen_and_how_fast_all_were(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    stage.agent(broker.port, "pi-1", "1", NONN_PRECISION="auto")
    watcher.until_state(watcher.topics.node("pi-1", "state"), "online")
    info = decode_status(NodeInfo, stage.watcher(broker.port).on(watcher.topics.node("pi-1", "info"))[-1].payload)
    times_ms = info.students[0].times_ms
    assert times_ms is not None
    assert set(times_ms) == {"student-1.int8.tflite", "student-1.float32.tflite"}
    assert min(times_ms.values()) > 0
    assert info.students[0].artifact in times_ms


def test_the_will_of_an_older_session_is_corrected(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    stage.agent(broker.port, "pi-1", "0")
    stage.coordinator(broker.port)
    for topic in (watcher.topics.node("pi-1", "state"), watcher.topics.coordinator("main", "state")):
        born = watcher.until_state(topic, "online")
        stale = NodeState(state="offline", session=int(str(born["session"])) - 1).encode()
        watcher.publish(topic, stale, retain=True)
        # The correction may come with it.
        watcher.until(lambda stale=stale: any(m.payload == stale for m in watcher.messages), "the older session's will")
        assert watcher.until_state(topic, "online") == born
        assert stage.watcher(broker.port).latest(topic) == born


def test_a_broker_restart_needs_no_hand(stage: Any) -> None:
    broker = stage.broker()
    agent = stage.agent(broker.port, "pi-1", "0,1,2")
    coordinator = stage.coordinator(broker.port)
    agent.wait_for("connected to")
    coordinator.wait_for("pi-1 is online")
    broker.kill()
    agent.wait_for("no broker")
    coordinator.wait_for("no broker")
    broker.start()  # nothing was persisted: all that is retained must come again
    watcher = stage.watcher(broker.port)
    watcher.until_state(watcher.topics.node("pi-1", "state"), "online")
    watcher.until_state(watcher.topics.coordinator("main", "state"), "online")
    fresh = stage.watcher(broker.port)
    for topic in (fresh.topics.node("pi-1", "info"), fresh.topics.coordinator("main", "info")):
        assert fresh.on(topic)[0].retain
    client = stage.program("coordinator.cli", broker.port, "classify", "--json", str(stage.image()))
    assert client.child.wait(30) == 0, client.output  # subscriptions are back too
    assert json.loads(client.output)["answer"]["result"] == "complete"
    assert agent.output.count("no broker") == coordinator.output.count("no broker") == 1


def test_two_programs_of_one_name_say_so(stage: Any, broker: Any) -> None:
    watcher = stage.watcher(broker.port)
    states = [watcher.topics.node("pi-1", "state"), watcher.topics.coordinator("main", "state")]

    def both() -> tuple[Any, Any]:
        started = stage.agent(broker.port, "pi-1", "0"), stage.coordinator(broker.port)
        for program, state in zip(started, states, strict=True):
            program.wait_for("connected to")
            watcher.until_state(state, "online")
        return started

    before = both()
    for program, state in zip(before, states, strict=True):
        assert program.end() == 0
        watcher.until_state(state, "offline")
    first = both()
    assert not any("another" in program.output for program in (*before, *first))
    for agent, coordinator in (first, both()):
        agent.wait_for(f"another device 'pi-1' of site '{stage.site}' is online")
        coordinator.wait_for(f"another coordinator 'main' of site '{stage.site}' is online")
