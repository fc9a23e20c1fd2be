"""A look into the running device over ssh: its units, mounts and restrictions, and a second agent with TVM."""

import io
import subprocess
import tarfile
from pathlib import Path

from edge_agent.console.exit_codes import UserError
from firmware_images import programs

SSH_S = 600  # a key exchange, and Python's start, with every instruction emulated
TVM_AGENT = "tvm"
LOOK = """
echo "== systemd-analyze security"
cd /usr/lib/systemd/system; for unit in edge-*.service nonn-*.service mosquitto.service; do
  systemd-analyze security --no-pager "${unit/@/@x}" | tail -1
done
echo "== times"; systemd-analyze time; systemd-analyze blame --no-pager | head -12
echo "== failed"; systemctl --failed --no-legend --no-pager
echo "== mounts"; grep -E "^[^ ]+ (/|/etc|/var|/boot/firmware|/data) " /proc/mounts
echo "== agent"; systemctl show edge-agent -p MainPID,NRestarts,Result,MemoryCurrent,WatchdogUSec
grep -E 'Cap(Eff|Bnd)|NoNewPrivs|Seccomp:|^Groups|^Uid' "/proc/$(systemctl show edge-agent -p MainPID --value)/status"
ls -ln /dev/video0
echo "== hub"; systemctl show edge-coordinator mosquitto -p Id,ActiveState,NRestarts,MemoryCurrent
ls -ln /etc/nonn-edge/broker; journalctl -u mosquitto -u edge-coordinator --no-pager -o cat | tail -30
echo "== watchdog"; cat /sys/class/watchdog/watchdog*/identity 2>/dev/null; systemctl show -p RuntimeWatchdogUSec
echo "== clock"; date -u; cat /etc/hostname; ls -l /etc/localtime
echo "== name"; resolvectl query "$(cat /etc/hostname).local" 2>&1 | head -3
echo "== root"; touch /usr/written 2>&1; df -m / /data | tail -2
echo "== journal"; journalctl -u edge-agent -u nonn-first-boot --no-pager -o cat | tail -40
"""
START_TVM = f"""set -e
mkdir -p /var/lib/nonn-edge/{TVM_AGENT}; cd /var/lib/nonn-edge/{TVM_AGENT}; tar -x
chmod -R a+rX .
{{ echo 'deployment = "/var/lib/nonn-edge/{TVM_AGENT}/deployment"'; echo 'students = [1]'; echo 'engine = "tvm"'
  grep -E '^site' /etc/nonn-edge/agent.toml; cat name.toml
  sed -n '/^.broker/,$p' /etc/nonn-edge/agent.toml | sed "s#/etc/nonn-edge/tls/device#$PWD/device#"; }} \
  > /etc/nonn-edge/agents/{TVM_AGENT}.toml
chown -R nonn-edge device.key; chmod 600 device.key
systemctl start --no-block edge-agent@{TVM_AGENT}
"""


class DeviceShell:
    """root's shell on the emulated device, for the key on its card."""

    def __init__(self, folder: Path, port: int) -> None:
        self._port = port
        self._key = folder / "ssh.key"
        programs.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "boot-test", "-f", self._key])
        self.public_key = Path(f"{self._key}.pub")

    def run(self, script: str, stdin: bytes = b"") -> str:
        """Run a shell script there; return its output. UserError if it fails."""
        options = ["UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "LogLevel=ERROR", "ConnectTimeout=120"]
        command = ["ssh", "-i", str(self._key), "-p", str(self._port)]
        command += [word for option in options for word in ("-o", option)]
        try:
            done = subprocess.run(
                [*command, "root@127.0.0.1", script],
                input=stdin, capture_output=True, check=False, timeout=SSH_S, env=programs.tool_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UserError(f"ssh to the device took more than {SSH_S} s") from error
        if done.returncode != 0:
            raise UserError(f"ssh to the device: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return done.stdout.decode(errors="replace")


def start_tvm_agent(shell: DeviceShell, deployment: Path, device: str, certificate: str, key: str) -> None:
    """Start edge-agent@tvm, the unit's template, with a TVM student and an identity of its own."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(deployment, "deployment", filter=lambda entry: None if "/." in entry.name else entry)
        for name, text in (("device.pem", certificate), ("device.key", key), ("name.toml", f'device = "{device}"\n')):
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    shell.run(START_TVM, packed.getvalue())
