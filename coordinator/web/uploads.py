"""An image from a page to the fleet and its answer back: limits, decoding, one at a time."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from coordinator.frame_client import FrameClient
from coordinator.labelled_images import decode_image
from coordinator.settings import ClientSettings
from coordinator.web.view import picture_url
from edge_agent.console.exit_codes import UserError
from edge_agent.protocol.prediction_message import PredictionMessage

MAX_UPLOAD_BYTES = 12_000_000  # a phone's JPEG has 3 to 8 MB
# A refused upload is read to here, so that its sender sees the answer and not a broken connection.
DRAINED_BYTES = 80_000_000
UPLOAD_TIMEOUT_S = 20.0
UPLOAD_BYTES_PER_S = 20e6  # of all uploads together: what they bring takes time of the live loop's interpreter
SITE_TIMEOUT_S = 2.0
MAX_WAITING = 4
SOURCE = "dashboard"


class Refusal(Exception):  # noqa: N818 (an answer, not an error of ours)
    """A request that gets this status and this one line."""

    def __init__(self, status: int, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.status, self.message, self.wait_s = status, message, wait_s


class UploadPace:
    """Holds all uploads together to a number of bytes a second; the sockets hold back the senders."""

    def __init__(self, bytes_per_s: float = UPLOAD_BYTES_PER_S) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at_s = 0.0

    async def admit(self, size_bytes: int) -> None:
        """Return when so many bytes more are due."""
        now = time.monotonic()
        self._free_at_s = max(now, self._free_at_s) + size_bytes / self._bytes_per_s
        await asyncio.sleep(self._free_at_s - now)


async def read_body(
    request: Request,
    pace: UploadPace,
    limit_bytes: int = MAX_UPLOAD_BYTES,
    timeout_s: float | None = None,
    what: str = "the image",
) -> bytes:
    """The body; Refusal 413 if it is too long, 408 if it comes too slowly."""
    timeout_s = UPLOAD_TIMEOUT_S if timeout_s is None else timeout_s
    content = bytearray()
    total_bytes = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                await pace.admit(len(chunk))
                total_bytes += len(chunk)
                if total_bytes <= limit_bytes:
                    content += chunk
                elif total_bytes > DRAINED_BYTES:
                    break
    except TimeoutError:
        raise Refusal(408, f"the upload took longer than {timeout_s:g} s") from None
    if total_bytes > limit_bytes:
        raise Refusal(413, f"{what} is larger than {limit_bytes / 1e6:g} MB")
    return bytes(content)


class ImageDesk:
    """Classifies uploaded images through the site, one after the other."""

    def __init__(self, settings: ClientSettings, shape: Callable[[], tuple[int, int, int]]) -> None:
        self._settings, self._shape = settings, shape
        self._one_at_a_time = asyncio.Semaphore(1)
        self._waiting = 0

    async def classify(self, content: bytes) -> dict[str, Any]:
        """Picture and answer; Refusal says why not."""
        if not content:
            raise Refusal(400, "no image in the request; send its bytes as the body")
        if self._waiting >= MAX_WAITING:
            raise Refusal(429, "other images are waiting; try again in a moment", wait_s=1.0)
        self._waiting += 1
        try:
            async with self._one_at_a_time:
                image, answer = await asyncio.to_thread(self._ask_fleet, content)
        finally:
            self._waiting -= 1
        names = answer.class_name
        return {"picture": picture_url(image), "class_name": names, "answer": answer.model_dump(mode="json")}

    def _ask_fleet(self, content: bytes) -> tuple[NDArray[np.uint8], PredictionMessage]:
        try:
            image = decode_image(content, self._shape(), "upload")
        except UserError as error:
            raise Refusal(415, str(error).removeprefix("upload: ")) from None
        client = FrameClient(self._settings, SOURCE)
        try:
            client.wait_for_site(SITE_TIMEOUT_S, all_students=False)
            for answer in client.classify([image], window=1):
                return image, answer.prediction
        except UserError as error:
            raise Refusal(503, str(error)) from None
        finally:
            client.close()
        raise Refusal(504, "no answer in time")
