"""The Pi's camera through picamera2: the image processor scales, the CPU only copies.

Written against the documented API (Picamera2 manual; calls checked against the published 0.3.38); not yet run on a Pi.
"""

from typing import Any

from edge_agent.frame_sources.frame_source import Image, Shape, SourceError, fit
from edge_agent.frame_sources.pictures import encode_jpeg
from edge_agent.frame_sources.yuv import i420_to_rgb
from edge_agent.settings import CameraSettings

APT_LINE = "apt install python3-picamera2, and make the venv with --system-site-packages"
# Every sensor of the Pi has a mode of this aspect; the main stream is what people see.
ASPECT_WIDTH, ASPECT_HEIGHT = 4, 3


class PiCamera:
    """Small YUV images for the students (lores), larger RGB ones for people (main), from one request."""

    live = True

    def __init__(self, camera: Any, shape: Shape, want_pictures: bool) -> None:
        self._camera = camera
        self._shape = shape
        self._want_pictures = want_pictures
        self._width, self._height = camera.camera_configuration()["lores"]["size"]
        self._last: Image | None = None

    def read(self) -> Image:
        """Wait for the next frame of the sensor."""
        request = self._camera.capture_request()
        try:
            small = request.make_array("lores")
            self._last = request.make_array("main") if self._want_pictures else None
        finally:
            request.release()
        return fit(i420_to_rgb(small, self._width, self._height), self._shape)

    def picture(self, width: int) -> bytes | None:
        """The main stream's last frame."""
        return encode_jpeg(self._last, width) if self._last is not None else None

    def close(self) -> None:
        """Give the camera back."""
        self._camera.stop()
        self._camera.close()


def open_pi_camera(settings: CameraSettings, shape: Shape) -> PiCamera:
    """Open, configure and start the camera; SourceError if picamera2 or the camera is missing."""
    try:
        from picamera2 import Picamera2
    except ImportError as error:
        raise SourceError(f"the Pi camera needs picamera2 ({error}): {APT_LINE}") from None
    number = int(settings.location) if settings.location.isdecimal() else 0
    cameras = Picamera2.global_camera_info()
    if number >= len(cameras):
        raise SourceError(
            f"Pi camera {number}: {len(cameras)} found; check the cable and `rpicam-hello --list-cameras`"
        )
    try:
        camera = Picamera2(number)
        camera.configure(_configuration(camera, settings, shape))
        camera.start()
    except RuntimeError as error:
        raise SourceError(f"Pi camera {number}: {error}; is another program using it?") from None
    return PiCamera(camera, shape, settings.picture_per_s > 0)


def stream_sizes(shape: Shape, picture_width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sizes (width, height) of main and lores: both 4:3 and even; lores twice the model's input, so that it averages.

    >>> stream_sizes((32, 32, 3), 640)
    ((640, 480), (88, 66))
    """
    # libcamera does not scale below 64 pixels; 8 x 6 steps keep the aspect and even chroma planes.
    steps = max(-(-2 * shape[0] // 6), -(-2 * shape[1] // 8), 8)
    lores = (8 * steps, 6 * steps)
    picture = max(picture_width // 8 * 8, lores[0])
    return (picture, picture * ASPECT_HEIGHT // ASPECT_WIDTH), lores


def _configuration(camera: Any, settings: CameraSettings, shape: Shape) -> Any:
    main, lores = stream_sizes(shape, settings.picture_width)
    frame_us = int(1e6 / settings.frames_per_s)
    controls: dict[str, Any] = {"FrameDurationLimits": (frame_us, frame_us)}
    if settings.exposure_us is not None:
        controls["ExposureTime"] = min(settings.exposure_us, frame_us)
    if settings.gain is not None:
        controls["AnalogueGain"] = settings.gain
    # picamera2 names formats by libcamera: its BGR888 is an array with red first. lores must be YUV on a Pi 4 and
    # older. The preview configuration has the full-range colour space (sYCC) that i420_to_rgb computes with.
    return camera.create_preview_configuration(
        main={"format": "BGR888", "size": main}, lores={"format": "YUV420", "size": lores}, controls=controls
    )
