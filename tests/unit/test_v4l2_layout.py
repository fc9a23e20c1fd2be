"""Numbers and offsets of the V4L2 reader are those of the kernel's header; skipped without compiler or header."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from edge_agent.frame_sources import v4l2_camera as v4l2
from edge_agent.frame_sources.frame_source import SourceError

PROGRAM = """#include <linux/videodev2.h>
#include <stddef.h>
#include <stdio.h>
#define P(x) printf("%lu\\n", (unsigned long)(x));
int main() {
  P(VIDIOC_QUERYCAP) P(VIDIOC_S_FMT) P(VIDIOC_REQBUFS) P(VIDIOC_QUERYBUF) P(VIDIOC_QBUF) P(VIDIOC_DQBUF)
  P(VIDIOC_STREAMON) P(VIDIOC_STREAMOFF) P(VIDIOC_S_PARM)
  P(sizeof(struct v4l2_capability)) P(sizeof(struct v4l2_format)) P(sizeof(struct v4l2_buffer))
  P(sizeof(struct v4l2_streamparm)) P(sizeof(struct v4l2_requestbuffers))
  P(V4L2_CAP_VIDEO_CAPTURE) P(V4L2_CAP_STREAMING) P(V4L2_CAP_DEVICE_CAPS) P(V4L2_BUF_FLAG_ERROR)
  P(offsetof(struct v4l2_capability, capabilities)) P(offsetof(struct v4l2_format, fmt.pix))
  P(offsetof(struct v4l2_buffer, memory)) P(offsetof(struct v4l2_buffer, m.offset))
  P(offsetof(struct v4l2_buffer, length)) P(offsetof(struct v4l2_streamparm, parm.capture.timeperframe))
  return 0;
}
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.skipif(not Path("/usr/include/linux/videodev2.h").exists(), reason="needs linux-libc-dev")
def test_the_layout_is_the_kernels(tmp_path: Path) -> None:
    (tmp_path / "p.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-o", tmp_path / "p", tmp_path / "p.c"], check=True)
    printed = subprocess.run([tmp_path / "p"], capture_output=True, text=True, check=True).stdout.split()
    ours = [
        v4l2.QUERYCAP, v4l2.S_FMT, v4l2.REQBUFS, v4l2.QUERYBUF, v4l2.QBUF, v4l2.DQBUF,
        v4l2.STREAMON, v4l2.STREAMOFF, v4l2.S_PARM,
        v4l2.CAPABILITY_BYTES, v4l2.FORMAT_BYTES, v4l2.BUFFER_BYTES, v4l2.STREAMPARM_BYTES, struct.calcsize("<IIIII"),
        v4l2.CAP_VIDEO_CAPTURE, v4l2.CAP_STREAMING, v4l2.CAP_DEVICE_CAPS, v4l2.BUFFER_FLAG_ERROR,
        84, 8, 60, 64, 72, 12,
    ]  # fmt: skip
    assert [int(number) for number in printed] == ours


@pytest.mark.parametrize(("device", "reason"), [("/dev/null", "not a V4L2 device"), ("/dev/video99", "No such file")])
def test_what_is_no_camera_is_said_in_one_line(device: str, reason: str) -> None:
    with pytest.raises(SourceError, match=reason):
        v4l2.V4l2Camera(device, 5.0, (32, 32, 3))
