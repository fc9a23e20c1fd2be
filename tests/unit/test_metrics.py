"""The exposition format, read back by Prometheus' own parser."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from coordinator.accuracy import LabelBook
from coordinator.metrics import CoordinatorMetrics
from coordinator.roster import Roster
from coordinator.web.snapshot import Snapshot
from edge_agent.console.exposition import MAX_ROWS, Counter, Gauge, Histogram, render
from edge_agent.energy_account import EnergyAccount
from edge_agent.node_status import FrameCounts, NodeStatus
from edge_agent.protocol.status import NodeState, NodeTelemetry, decode_status
from edge_agent.protocol.topics import SiteTopics
from edge_agent.settings import AgentSettings


def samples(text):
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(st.dictionaries(st.text(max_size=20), st.floats(allow_nan=False), max_size=20))
def test_any_label_and_number_reads_back(rows):
    gauge = Gauge("nonn_test", "A text with \\ and\nlines", ("name",))
    for name, number in rows.items():
        gauge.set(name, number=number)
    assert samples(gauge.render()) == {("nonn_test", (("name", name),)): number for name, number in rows.items()}


@given(st.lists(st.floats(min_value=0, max_value=10), max_size=50))
def test_histogram_buckets_are_cumulative_and_sum_up(numbers):
    histogram = Histogram("nonn_test_seconds", "Test")
    for number in numbers:
        histogram.observe(number=number)
    seen = samples(histogram.render())
    if not numbers:
        assert not seen
        return
    assert seen["nonn_test_seconds_count", ()] == len(numbers)
    assert seen["nonn_test_seconds_sum", ()] == pytest.approx(sum(numbers))
    buckets = {float(labels[0][1]): value for (name, labels), value in seen.items() if name.endswith("_bucket")}
    for bound, count in buckets.items():
        assert count == sum(number <= bound for number in numbers)
    assert buckets[math.inf] == len(numbers)


def test_labels_from_the_network_take_bounded_memory():
    counter = Counter("nonn_test_total", "Test", ("source",))
    for number in range(3 * MAX_ROWS):
        counter.add(f"source-{number}")
    seen = samples(counter.render())
    assert len(seen) == MAX_ROWS + 1
    assert sum(seen.values()) == 3 * MAX_ROWS


def test_a_wrong_number_of_labels_is_refused():
    with pytest.raises(ValueError, match="labels"):
        Counter("nonn_test_total", "Test", ("source",)).add()


def test_a_scrape_is_the_families_one_after_the_other():
    counter, gauge = Counter("nonn_a_total", "A"), Gauge("nonn_b", "B")
    counter.add(amount=2)
    gauge.set(number=0.5)
    assert samples(render([counter, gauge])) == {("nonn_a_total", ()): 2, ("nonn_b", ()): 0.5}


@pytest.mark.parametrize(
    ("power_w", "board", "source", "joules"),
    [
        (2.5, "Raspberry Pi 3 Model B Plus", "measured", 25.0),
        (None, "Raspberry Pi 3 Model B Plus", "estimated", 0.8 * 5.0),
        (None, "a PC", None, None),
    ],
)
def test_energy_is_measured_else_estimated_else_not_told(power_w, board, source, joules):
    cpu_s = iter(range(1000))
    account = EnergyAccount(lambda: power_w, lambda: next(cpu_s) / 2, board)
    for second in range(11):
        account.sample(100.0 + second)
    assert account.joules == ({} if source is None else {source: pytest.approx(joules)})
    assert (account.power_w is None) == (source is None)


def _reported(account):
    """What the coordinator exports of a device with this energy account, after ten seconds."""
    settings = AgentSettings(device="pi-0", students=(0,), deployment=Path("unused"))
    status = NodeStatus(settings, SiteTopics("home"), account)
    for second in range(11):
        account.tick(100.0 + second)
    message = status.telemetry(10.0, FrameCounts(), 0, 0)
    roster = Roster()
    roster.state("pi-0", NodeState(state="online", session=status.session))
    roster.telemetry("pi-0", decode_status(NodeTelemetry, message.payload))
    snapshot = Snapshot(1, 0.0, True, "d" * 16, (), tuple(roster.devices), {})
    labels = LabelBook(SiteTopics("home"))
    return samples(CoordinatorMetrics("home", "main", dict, lambda: snapshot, lambda _: "digits", labels).text())


@pytest.mark.parametrize(("sensor_w", "source", "watts"), [(2.5, "measured", 2.5), (None, "estimated", 0.4)])
def test_energy_travels_from_the_device_to_the_coordinators_metrics(sensor_w, source, watts):
    cpu_s = iter(range(1000))
    account = EnergyAccount(lambda: sensor_w, lambda: next(cpu_s) / 2, "Raspberry Pi 3 Model B Plus")
    seen = _reported(account)
    labels = (("device", "pi-0"), ("source", source))
    assert seen["nonn_device_energy_joules_total", labels] == pytest.approx(10 * watts)
    assert seen["nonn_device_power_watts", labels] == pytest.approx(watts)
    assert len([name for name, _ in seen if name == "nonn_device_energy_joules_total"]) == 1


def test_a_machine_without_sensor_and_of_unknown_kind_tells_no_energy():
    seen = _reported(EnergyAccount(lambda: None, lambda: 0.0, "a PC"))
    assert not [name for name, _ in seen if "energy" in name or "power" in name]
