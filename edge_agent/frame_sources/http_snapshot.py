"""A camera on the network that gives a picture for every GET, as most IP cameras and ESP32-CAM do."""

import http.client
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from edge_agent.frame_sources.frame_source import Image, Shape, SourceError, fit
from edge_agent.frame_sources.pictures import decode_picture, encode_jpeg, pillow

TIMEOUT_S = 5.0
MAX_PICTURE_BYTES = 20_000_000  # a 50 megapixel JPEG; a stream without end must not fill the memory


class HttpSnapshot:
    """GET `location`, again for each image."""

    live = True

    def __init__(self, location: str, shape: Shape) -> None:
        if urlsplit(location).scheme not in ("http", "https"):
            raise SourceError(f"{location}: expected an http:// or https:// address")
        pillow()  # say now, and not at the first picture, that it is missing
        self._location = location
        self._shape = shape
        self._last: Image | None = None

    def read(self) -> Image:
        """Fetch and fit a picture."""
        try:
            with urllib.request.urlopen(self._location, timeout=TIMEOUT_S) as response:  # noqa: S310 (checked above)
                content = response.read(MAX_PICTURE_BYTES + 1)
        except (OSError, urllib.error.URLError, http.client.HTTPException) as error:
            raise SourceError(f"{self._location}: {error}") from None
        if len(content) > MAX_PICTURE_BYTES:
            raise SourceError(f"{self._location}: more than {MAX_PICTURE_BYTES} bytes; expected one picture")
        self._last = decode_picture(content, self._location, 2 * max(self._shape[:2]))
        return fit(self._last, self._shape)

    def picture(self, width: int) -> bytes | None:
        """The last picture."""
        return encode_jpeg(self._last, width) if self._last is not None else None

    def close(self) -> None:
        """Nothing is open between two pictures."""
