"""How long messages gather before they are taken together. Pure.

Taken one by one each costs three times as much: a program that wakes up finds the CPU's caches full of students
(docs/decisions/0016). What comes in packs has gathered already.
"""

CROWDED_FRAMES = 8  # with fewer in flight every one of them counts
GATHER_PART, LONGEST_GATHER_S = 0.1, 0.01
PLENTY = 64  # messages of a round that needs no gathering


def gather_s(frames_in_flight: int, waited_s: float, last_messages: int = 0) -> float:
    """A part of what a frame has waited anyway, seconds. `last_messages`: how many the round before brought.

    >>> gather_s(64, 0.03), gather_s(64, 0.5), gather_s(1, 0.03)
    (0.003, 0.01, 0.0)
    """
    if frames_in_flight < CROWDED_FRAMES or last_messages >= PLENTY:
        return 0.0
    return min(LONGEST_GATHER_S, GATHER_PART * waited_s)
