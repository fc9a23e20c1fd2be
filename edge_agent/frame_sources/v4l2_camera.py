"""A V4L2 camera (USB, vivid), read with the kernel's own calls: no OpenCV on the device.

Numbers and layouts are those of linux/videodev2.h on 64-bit machines, checked by tests/unit/test_v4l2_layout.py.
"""

import fcntl
import mmap
import os
import select
import struct
from typing import NoReturn

import numpy as np

from edge_agent.frame_sources.frame_source import Image, Shape, SourceError, fit
from edge_agent.frame_sources.pictures import decode_picture, encode_jpeg
from edge_agent.frame_sources.yuv import yuyv_to_rgb

QUERYCAP, S_FMT, REQBUFS, QUERYBUF = 0x80685600, 0xC0D05605, 0xC0145608, 0xC0585609
QBUF, DQBUF, STREAMON, STREAMOFF, S_PARM = 0xC058560F, 0xC0585611, 0x40045612, 0x40045613, 0xC0CC5616
CAPABILITY_BYTES, FORMAT_BYTES, BUFFER_BYTES, STREAMPARM_BYTES = 104, 208, 88, 204
CAP_VIDEO_CAPTURE, CAP_STREAMING, CAP_DEVICE_CAPS = 0x1, 0x04000000, 0x80000000
VIDEO_CAPTURE, MEMORY_MMAP, BUFFER_FLAG_ERROR = 1, 1, 0x40
# In order of preference: no decoding first; every UVC camera has one of the last two.
FORMATS = (b"RGB3", b"YUYV", b"MJPG", b"GREY")
BUFFERS = 3  # one being filled, one waiting, one being read
TIMEOUT_S = 5.0  # a camera that gives nothing for so long is unplugged or stuck
ASKED_SIZE = (640, 480)  # width, height: every camera has it; the driver answers with the nearest it can


class V4l2Camera:
    """One /dev/video device, streaming into memory that it shares with us."""

    live = True

    def __init__(self, location: str, frames_per_s: float, shape: Shape) -> None:
        self._location = location
        self._shape = shape
        try:
            self._device = os.open(location, os.O_RDWR | os.O_NONBLOCK)
        except OSError as error:
            raise SourceError(f"{location}: {error.strerror}; expected a camera such as /dev/video0") from None
        self._buffers: list[mmap.mmap] = []
        try:
            self._check_capabilities()
            self._set_format()
            self._set_rate(frames_per_s)
            self._start()
        except OSError as error:
            self.close()
            raise SourceError(f"{location}: {error.strerror}; is another program using it?") from None
        except BaseException:
            self.close()
            raise
        self._last: Image | None = None

    def read(self) -> Image:
        """Wait for the newest frame."""
        for _ in range(BUFFERS + 1):
            self._last = self._dequeue()
            if self._last is not None and not select.select([self._device], [], [], 0)[0]:
                break  # no newer one is waiting
        if self._last is None:
            self._fail("only damaged frames; check the cable")
        return fit(self._last, self._shape)

    def picture(self, width: int) -> bytes | None:
        """The last frame."""
        return encode_jpeg(self._last, width) if self._last is not None else None

    def close(self) -> None:
        """Stop streaming and give the device back."""
        if self._device < 0:
            return
        if self._buffers:
            self._call(STREAMOFF, bytearray(struct.pack("<i", VIDEO_CAPTURE)), ignore_errors=True)
        for buffer in self._buffers:
            buffer.close()
        self._buffers = []
        os.close(self._device)
        self._device = -1

    def _check_capabilities(self) -> None:
        answer = bytearray(CAPABILITY_BYTES)
        try:
            self._call(QUERYCAP, answer)
        except OSError:
            self._fail("not a V4L2 device; expected a camera such as /dev/video0")
        capabilities, device = struct.unpack_from("<II", answer, 84)
        found = device if capabilities & CAP_DEVICE_CAPS else capabilities
        if not (found & CAP_VIDEO_CAPTURE and found & CAP_STREAMING):
            self._fail("not a camera that streams; cameras of a Pi's own connector need kind = picamera2")

    def _set_format(self) -> None:
        for wanted in FORMATS:
            request = bytearray(FORMAT_BYTES)
            struct.pack_into("<i", request, 0, VIDEO_CAPTURE)
            struct.pack_into("<II4sI", request, 8, *ASKED_SIZE, wanted, 1)  # field 1: whole frames, not interlaced
            self._call(S_FMT, request)
            self._width, self._height, self._format, _, self._stride = struct.unpack_from("<II4sII", request, 8)
            if self._format == wanted:
                return
        self._fail(f"gives only {self._format.decode(errors='replace')}; expected one of RGB3, YUYV, MJPG, GREY")

    def _set_rate(self, frames_per_s: float) -> None:
        request = bytearray(STREAMPARM_BYTES)
        struct.pack_into("<i", request, 0, VIDEO_CAPTURE)
        struct.pack_into("<II", request, 12, 1000, int(frames_per_s * 1000))
        self._call(S_PARM, request, ignore_errors=True)  # not every driver has rates; the loop keeps ours anyway

    def _start(self) -> None:
        self._call(REQBUFS, bytearray(struct.pack("<IIIII", BUFFERS, VIDEO_CAPTURE, MEMORY_MMAP, 0, 0)))
        for index in range(BUFFERS):
            buffer = self._buffer(index)
            self._call(QUERYBUF, buffer)
            (offset,) = struct.unpack_from("<I", buffer, 64)
            (length,) = struct.unpack_from("<I", buffer, 72)
            self._buffers.append(mmap.mmap(self._device, length, offset=offset))
            self._call(QBUF, self._buffer(index))
        self._call(STREAMON, bytearray(struct.pack("<i", VIDEO_CAPTURE)))

    def _dequeue(self) -> Image | None:
        if not select.select([self._device], [], [], TIMEOUT_S)[0]:
            self._fail(f"no frame for {TIMEOUT_S:g} s")
        buffer = self._buffer(0)
        try:
            self._call(DQBUF, buffer)
        except OSError as error:
            self._fail(f"{error.strerror}; unplugged?")
        index, _, used, flags = struct.unpack_from("<IIII", buffer, 0)
        content = self._buffers[index][:used]
        self._call(QBUF, self._buffer(index))
        return None if flags & BUFFER_FLAG_ERROR or not used else self._decode(content)

    def _decode(self, content: bytes) -> Image | None:
        if self._format == b"MJPG":
            return decode_picture(content, self._location, 2 * max(self._shape[:2]))
        if len(content) < self._stride * self._height:
            return None
        rows = np.frombuffer(content, np.uint8, self._stride * self._height).reshape(self._height, self._stride)
        if self._format == b"YUYV":
            return yuyv_to_rgb(rows, self._width)
        channels = 3 if self._format == b"RGB3" else 1
        return rows[:, : channels * self._width].reshape(self._height, self._width, channels)

    def _buffer(self, index: int) -> bytearray:
        buffer = bytearray(BUFFER_BYTES)
        struct.pack_into("<II", buffer, 0, index, VIDEO_CAPTURE)
        struct.pack_into("<I", buffer, 60, MEMORY_MMAP)
        return buffer

    def _call(self, request: int, argument: bytearray, ignore_errors: bool = False) -> None:
        try:
            fcntl.ioctl(self._device, request, argument, True)
        except OSError:
            if not ignore_errors:
                raise

    def _fail(self, reason: str) -> NoReturn:
        raise SourceError(f"{self._location}: {reason}")
