"""`nonn-trainer demo --dashboard`: what a newcomer looks at first."""

import re
import signal
import subprocess
import sys

from nonn_test_stage import free_port, wait_until

LIVE_MS = 20_000
DEMO_S = 420.0


def test_the_demo_ends_in_a_dashboard_with_accuracy_until_ctrl_c(open_page, tmp_path):
    port, log = free_port(), tmp_path / "demo.log"
    command = [sys.executable, "-m", "trainer.cli", "demo", "--out", str(tmp_path / "demo"), "--dashboard", str(port)]
    with log.open("w") as output:
        # Ctrl-C reaches a session of its own, and is heard there where the tests run as a shell's background job, too.
        heard = ["env", "--default-signal=INT", *command]
        demo = subprocess.Popen(heard, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        wait_until(lambda: "dashboard: http" in log.read_text() or demo.poll() is not None, "the demo serves", DEMO_S)
        assert demo.poll() is None, log.read_text()
        page = open_page(f"http://localhost:{port}/")
        page.wait_for_selector("#link.good", timeout=LIVE_MS)
        page.wait_for_selector(".source >> text=/% right/", timeout=LIVE_MS)
        right = re.search(r"([\d.]+)\s%\sright", page.inner_text("body"))
        assert 80 < float(right[1]) <= 100
        assert page.locator(".device .pill.good").count() == 3
        assert page.trouble == []
    finally:
        demo.send_signal(signal.SIGINT)
        code = demo.wait(60)
    assert code == 0, log.read_text()
