"""The Grafana dashboard asks only for metrics that exist."""

import json
import re

from coordinator.accuracy import LabelBook
from coordinator.metrics import CoordinatorMetrics
from coordinator.web.snapshot import Snapshot, SourceSnapshot
from edge_agent.protocol.topics import SiteTopics


def names_of(text):
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


def test_every_query_names_a_metric_of_ours(repository):
    dashboard = json.loads((repository / "docs/grafana/nonn-edge.json").read_text())
    labels = LabelBook(SiteTopics("home"))
    snapshot = Snapshot(1, 0.0, True, "d" * 16, (SourceSnapshot("a", None, 0.0, (), 2, 1),), (), {})
    metrics = CoordinatorMetrics("home", "main", dict, lambda: snapshot, lambda _: "digits", labels)
    known = names_of(metrics.text()) | set(re.findall(r"nonn_agent_\w+", _agent_source()))
    asked = set()
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            asked |= set(re.findall(r"nonn_\w+", target["expr"]))
    unknown = {name for name in asked if re.sub(r"_(bucket|sum|count)$", "", name) not in known and name not in known}
    assert unknown == set()
    assert len(asked) >= 15


def _agent_source():
    from inspect import getsource

    import edge_agent.metrics

    return getsource(edge_agent.metrics)


def test_panels_do_not_overlap(repository):
    dashboard = json.loads((repository / "docs/grafana/nonn-edge.json").read_text())
    taken = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
