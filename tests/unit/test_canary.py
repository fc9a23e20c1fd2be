import numpy as np
import pytest

from coordinator.canary import OPEN_FRAMES, CanaryComparison, ComparedHead
from edge_agent.protocol.head import MergeHead, SubsetHead

OLD, NEW = "0" * 16, "1" * 16


def head(deployment, sign=1.0):
    weights = sign * np.array([[1, -1], [1, -1], [1, -1]], np.float32)
    heads = {
        1: SubsetHead(weights[:2], np.zeros(2, np.float32), 1.0),
        3: SubsetHead(weights, np.zeros(2, np.float32), 1.0),
    }
    return ComparedHead(deployment, ("cat", "dog"), MergeHead((2, 1), 2, heads, np.zeros(3, np.float32)))


def feed(comparison, frames, new_us=1000, device="pi-0", student=0, width=2):
    for frame in frames:
        for deployment, us in ((OLD, 1000), (NEW, new_us)):
            comparison.receive(device, deployment, "cam", frame, student, np.ones(width, np.float32), us)


@pytest.mark.parametrize(("sign", "agreement"), [(1.0, 1.0), (-1.0, 0.0)])
def test_agreement_is_of_both_heads_on_the_same_students(sign, agreement):
    comparison = CanaryComparison(head(OLD), head(NEW, sign), {"pi-0": (0,)})
    assert comparison.report().agreement is None
    feed(comparison, range(20), new_us=3000)
    report = comparison.report()
    assert (report.frames, report.agreement) == (20, agreement)
    assert report.latency_ratio == pytest.approx(3.0)


def test_others_strangers_and_wrong_widths_do_not_count():
    comparison = CanaryComparison(head(OLD), head(NEW), {"pi-0": (0,)})
    feed(comparison, range(5), device="pi-9")
    feed(comparison, range(5), student=1, width=1)
    feed(comparison, range(5), student=7)
    feed(comparison, range(5), width=3)
    comparison.receive("pi-0", "2" * 16, "cam", 1, 0, np.ones(2, np.float32), 1)
    assert comparison.report().frames == 0


def test_frames_without_their_other_half_take_bounded_memory():
    comparison = CanaryComparison(head(OLD), head(NEW), {"pi-0": (0,)})
    for frame in range(3 * OPEN_FRAMES):
        comparison.receive("pi-0", OLD, "cam", frame, 0, np.ones(2, np.float32), 1)
    for frame in range(3 * OPEN_FRAMES):
        comparison.receive("pi-0", NEW, "cam", frame, 0, np.ones(2, np.float32), 1)
    assert comparison.report().frames <= OPEN_FRAMES + 1
