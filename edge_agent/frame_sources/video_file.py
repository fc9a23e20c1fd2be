"""A video file or stream, read with OpenCV where that is installed."""

from typing import Any

from edge_agent.frame_sources.frame_source import Image, Shape, SourceError, fit
from edge_agent.frame_sources.pictures import encode_jpeg

OPENCV_LINE = "pip install opencv-python-headless, or apt install python3-opencv"


class VideoFile:
    """Frames of a file in order, all of them; of a stream (rtsp://...) as they come."""

    def __init__(self, location: str, shape: Shape, repeat: bool) -> None:
        try:
            import cv2
        except ImportError:
            raise SourceError(f"reading video needs OpenCV: {OPENCV_LINE}") from None
        self._cv2: Any = cv2
        self._location = location
        self._shape = shape
        self._repeat = repeat
        self.live = "://" in location
        self._capture = self._open()
        self._last: Image | None = None

    def read(self) -> Image | None:
        """The next frame, fitted; None at the end of a file."""
        good, bgr = self._capture.read()
        if not good and (self._repeat or self.live):
            self._capture.release()
            self._capture = self._open()
            good, bgr = self._capture.read()
        if not good:
            if self.live:
                raise SourceError(f"{self._location}: the stream gives no frames")
            return None
        self._last = bgr[:, :, ::-1]
        return fit(self._last, self._shape)

    def picture(self, width: int) -> bytes | None:
        """The last frame."""
        return encode_jpeg(self._last, width) if self._last is not None else None

    def close(self) -> None:
        """Give the file back."""
        self._capture.release()

    def _open(self) -> Any:
        capture = self._cv2.VideoCapture(self._location)
        if not capture.isOpened():
            raise SourceError(f"{self._location}: OpenCV can't open it; expected a video file or stream")
        return capture
