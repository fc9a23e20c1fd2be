"""Which frames in flight came in packs: only their answers may leave in packs. Pure."""

from collections import OrderedDict
from collections.abc import Iterable

from coordinator.feature_merger import FrameKey


class PackedFrames:
    """At most `most` frames; the oldest makes room and is answered alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._keys: OrderedDict[FrameKey, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, keys: Iterable[FrameKey]) -> None:
        """A pack has come."""
        for key in keys:
            self._keys[key] = None
        while len(self._keys) > self._most:
            self._keys.popitem(last=False)

    def take(self, key: FrameKey) -> bool:
        """Whether this frame came in a pack; asked once, when it is answered."""
        return self._keys.pop(key, self) is None
