"""Frame sources: sizes, colours, folders, HTTP, the capture thread, and the calls made to picamera2."""

import http.server
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edge_agent.capture_thread import CaptureThread
from edge_agent.frame_sources import open_source
from edge_agent.frame_sources.frame_source import SourceError, fit
from edge_agent.frame_sources.http_snapshot import HttpSnapshot
from edge_agent.frame_sources.image_folder import ImageFolder
from edge_agent.frame_sources.pi_camera import open_pi_camera, stream_sizes
from edge_agent.frame_sources.video_file import VideoFile
from edge_agent.frame_sources.yuv import i420_to_rgb, yuyv_to_rgb
from edge_agent.settings import CameraSettings

SHAPE = (8, 8, 3)


@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20))
def test_any_picture_fits_any_input_and_one_colour_stays_that_colour(
    rows: int, columns: int, channels: int, height: int, width: int
) -> None:
    image = np.full((rows, columns, channels), 77, np.uint8)
    for wanted in (1, 3):
        small = fit(image, (height, width, wanted))
        assert small.shape == (height, width, wanted)
        assert small.dtype == np.uint8
        assert (small == 77).all()


def test_scaling_averages_and_does_not_pick() -> None:
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 200
    assert (fit(stripes, (8, 8, 1)) == 100).all()


def test_yuv_colours_are_those_of_jpeg() -> None:
    picture = Image.new("RGB", (16, 8), (200, 60, 20))
    y, u, v = (np.asarray(band) for band in picture.convert("YCbCr").split())
    stride = 32  # wider than the picture, as cameras align rows
    planes = np.zeros((12, stride), np.uint8)
    planes[:8, :16] = y
    chroma = planes[8:].reshape(2, 4, stride // 2)
    chroma[0, :, :8], chroma[1, :, :8] = u[::2, ::2], v[::2, ::2]
    assert np.abs(i420_to_rgb(planes, 16, 8).astype(int) - (200, 60, 20)).max() <= 2
    rows = np.stack([y[:, ::2], u[:, ::2], y[:, 1::2], v[:, ::2]], axis=2).reshape(8, 32)
    assert np.abs(yuyv_to_rgb(rows, 16).astype(int) - (200, 60, 20)).max() <= 2


def test_a_folder_is_read_in_the_order_of_names_and_bad_files_are_named(tmp_path: Path) -> None:
    for name, level in (("b.png", 2), ("a.png", 1)):
        Image.new("RGB", (30, 20), (level,) * 3).save(tmp_path / name)
    (tmp_path / "c.png").write_bytes(b"not a picture")
    source = ImageFolder(str(tmp_path), SHAPE, repeat=False)
    assert [int(image.max()) for image in (source.read(), source.read()) if image is not None] == [1, 2]
    with pytest.raises(SourceError, match=r"c\.png: not a picture"):
        source.read()
    assert source.read() is None


@pytest.mark.parametrize("location", ["/nowhere/at/all", "/proc/self/fd"])
def test_a_folder_without_pictures_is_an_error(location: str) -> None:
    with pytest.raises(SourceError, match="expected"):
        ImageFolder(location, SHAPE, repeat=False)


@pytest.fixture
def server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.path == "/snapshot.jpg"
            self.send_response(200 if self.path != "/gone" else 404)
            self.end_headers()
            if good:
                Image.new("RGB", (64, 48), (10, 200, 30)).save(self.wfile, "JPEG")
            else:
                self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_http_snapshots(server: str) -> None:
    source = HttpSnapshot(f"{server}/snapshot.jpg", SHAPE)
    assert np.abs(source.read().astype(int) - (10, 200, 30)).max() <= 3
    assert (source.picture(32) or b"")[:2] == b"\xff\xd8"
    for path, reason in (("/page", "not a picture"), ("/gone", "404")):
        with pytest.raises(SourceError, match=reason):
            HttpSnapshot(server + path, SHAPE).read()
    with pytest.raises(SourceError, match="http://"):
        HttpSnapshot("file:///etc/passwd", SHAPE)


class Counting:
    """A source at its seam: images 1, 2, 3 ..."""

    def __init__(self, live: bool, count: int) -> None:
        self.live, self._left, self._value = live, count, 0

    def read(self) -> Any:
        if not self._left:
            return None
        self._left -= 1
        self._value += 1
        return np.full((1, 1, 1), self._value, np.uint8)

    def picture(self, width: int) -> None:
        return None

    def close(self) -> None:
        pass


def test_of_a_file_every_image_is_handed_over() -> None:
    capture = CaptureThread(lambda: Counting(live=False, count=5), 1000.0, 0.0, 0)
    capture.start()
    seen = []
    while not capture.finished or len(seen) < 5:
        time.sleep(0.01)
        if (captured := capture.take()) is not None:
            seen.append(int(captured.image[0, 0, 0]))
    assert seen == [1, 2, 3, 4, 5]


def test_of_a_live_source_only_the_newest_image_waits() -> None:
    capture = CaptureThread(lambda: Counting(live=True, count=20), 2000.0, 0.0, 0)
    capture.start()
    while not capture.finished:
        time.sleep(0.01)
    captured = capture.take()
    assert captured is not None
    assert captured.image[0, 0, 0] == 20
    assert capture.skipped == 19


def test_a_missing_picamera2_names_the_apt_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(SourceError, match="apt install python3-picamera2"):
        open_source(CameraSettings(source="door"), SHAPE)


@given(st.integers(1, 1024), st.integers(1, 1024), st.integers(32, 4096))
def test_stream_sizes_keep_libcameras_rules(height: int, width: int, picture: int) -> None:
    main, lores = stream_sizes((height, width, 3), picture)
    assert lores[0] <= main[0]
    assert lores[1] <= main[1]
    assert all(side % 2 == 0 for side in lores)
    assert lores[0] >= 2 * width
    assert lores[1] >= 2 * height


def test_the_calls_to_picamera2_are_those_of_its_documentation(  # noqa: C901 (a stand-in has many small methods)
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A stand-in with the published signatures (0.3.38): an argument that these do not have would raise."""
    asked: dict[str, Any] = {}
    rows = np.full((99, 128), 128, np.uint8)

    class Request:
        def make_array(self, name: str) -> np.ndarray:
            return rows if name == "lores" else np.zeros((480, 640, 3), np.uint8)

        def release(self) -> None:
            asked["released"] = asked.get("released", 0) + 1

    class Picamera2:
        def __init__(self, camera_num=0, verbose_console=None, tuning=None, allocator=None) -> None:
            asked["number"] = camera_num

        @staticmethod
        def global_camera_info() -> list[dict[str, Any]]:
            return [{"Num": 0, "Model": "imx708"}]

        def create_preview_configuration(
            self, main=None, lores=None, raw=None, transform=None, colour_space=None, buffer_count=4, controls=None,
            display="main", encode="main", queue=True, sensor=None, use_case="preview",
        ) -> dict[str, Any]:  # fmt: skip
            asked.update(main=main, lores=lores, controls=controls)
            return {"lores": lores}

        def configure(self, camera_config=None) -> None:
            self._configuration = camera_config

        def camera_configuration(self) -> dict[str, Any]:
            return self._configuration

        def start(self, config=None, show_preview=False) -> None:
            asked["started"] = True

        def capture_request(self, wait=None, signal_function=None, flush=None) -> Request:
            return Request()

        def stop(self) -> None:
            asked["stopped"] = True

        def close(self) -> None:
            asked["closed"] = True

    module = types.ModuleType("picamera2")
    module.Picamera2 = Picamera2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    settings = CameraSettings(source="door", frames_per_s=10, exposure_us=5000, gain=2, picture_per_s=1)
    camera = open_pi_camera(settings, (32, 32, 3))
    image = camera.read()
    assert image.shape == (32, 32, 3)
    assert (image == 128).all()
    assert (camera.picture(320) or b"")[:2] == b"\xff\xd8"
    camera.close()
    assert asked["controls"] == {"FrameDurationLimits": (100_000, 100_000), "ExposureTime": 5000, "AnalogueGain": 2.0}
    assert asked["lores"] == {"format": "YUV420", "size": (88, 66)}
    assert asked["released"] == 1
    assert asked["closed"]
    with pytest.raises(SourceError, match="1 found"):
        open_pi_camera(CameraSettings(source="door", location="3"), SHAPE)


def test_a_video_file_gives_every_frame_in_order_and_can_begin_again(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is optional: pip install opencv-python-headless")
    path = str(tmp_path / "grey.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    greys = [0, 60, 120, 180, 240]
    for grey in greys:
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    video = VideoFile(path, (8, 8, 1), repeat=False)
    assert not video.live
    images = [video.read() for _ in greys]
    np.testing.assert_allclose([image.mean() for image in images if image is not None], greys, atol=4)
    assert video.read() is None
    assert (video.picture(32) or b"")[:2] == b"\xff\xd8"
    video.close()
    again = VideoFile(path, (8, 8, 3), repeat=True)
    seen = [again.read() for _ in range(2 * len(greys))]
    np.testing.assert_allclose([image.mean() for image in seen if image is not None], 2 * greys, atol=4)
    again.close()
    (tmp_path / "text.avi").write_text("no video")
    with pytest.raises(SourceError, match="expected a video file or stream"):
        VideoFile(str(tmp_path / "text.avi"), (8, 8, 1), repeat=False)


def test_without_opencv_a_video_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SourceError, match="opencv-python-headless"):
        VideoFile("film.mp4", (8, 8, 1), repeat=False)
