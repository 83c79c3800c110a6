"""A real Flower deployment on loopback, started with the commands of the example's README.

TLS, authenticated SuperNodes, free ports, a FLWR_HOME of its own. Whatever happens, everything that was started is
stopped by its process id, and what is left is an error. The commands are the README's own, with other ports, so that
what it says works.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples/flower-app"
README = (EXAMPLE / "README.md").read_text(encoding="utf-8")
PORTS = ("8000", "9100", "9101", "9102")
"""As the README has them."""
MARK = "JOULEWISE_SANDBOX"
SECONDS = 300.0
"""The longest wait for anything; on an idle machine all but the loss of a node takes seconds."""
QUICKER = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",  # The README's own line: nothing is fetched.
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
    "RAY_DISABLE_DASHBOARD": "1",
    "OMP_NUM_THREADS": "1",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}


def missing() -> str | None:
    """What a deployment needs and this machine lacks."""
    beside = Path(sys.executable).parent
    lacking = [name for name in ("openssl", "ssh-keygen") if shutil.which(name) is None]
    lacking += [name for name in ("flower-superlink", "flower-supernode") if not (beside / name).exists()]
    return f"a deployment needs {', '.join(lacking)}" if lacking else None


def readme_commands(*words: str) -> list[str]:
    """The commands in the README that start with these words, each on one line."""
    blocks = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [" ".join(line.removeprefix("$ ").split()) for line in lines if line.startswith("$ ")]
    return [command for command in commands if shlex.split(command)[: len(words)] == list(words)]


def readme_connection() -> str:
    """The README's section for Flower's configuration file."""
    (connection,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    return connection


def free_ports(count: int) -> list[str]:
    """Ports of loopback that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [str(each.getsockname()[1]) for each in sockets]


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = SECONDS) -> None:
    """Look every 0.1 s whether something has come about.

    Raises:
        TimeoutError: it has not.
    """
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.1)


@dataclass
class Sandbox:
    """Processes with a folder, a FLWR_HOME and a mark in their environment.

    Args:
        folder: where commands run; their logs are under ``logs``.
        ports: what stands in place of each port of the README.
    """

    folder: Path
    ports: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    mark: str = field(default_factory=lambda: uuid4().hex)

    @property
    def home(self) -> Path:
        """FLWR_HOME."""
        return self.folder / "flwr-home"

    def with_ports(self, text: str) -> str:
        """A text of the README with the ports of this sandbox."""
        return re.sub(r"\b(\d{4,5})\b", lambda found: self.ports.get(found[1], found[1]), text)

    def environment(self) -> dict[str, str]:
        """Of every process: the programs beside this Python first, and the mark by which they are found again."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return os.environ | QUICKER | {"PATH": path, "FLWR_HOME": str(self.home), MARK: self.mark}

    def start(self, name: str, command: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command of the README in a process group of its own; its output goes to ``logs/NAME.log``."""
        log = self.folder / "logs" / f"{name}.log"
        log.parent.mkdir(exist_ok=True)
        with log.open("ab") as output:
            self.processes[name] = subprocess.Popen(
                shlex.split(self.with_ports(command)), cwd=cwd or self.folder, env=self.environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        return self.processes[name]

    def finish(self, name: str, timeout_s: float = SECONDS) -> str:
        """Wait for a command to end well and return what it printed.

        Raises:
            RuntimeError: it ended with an error.
            TimeoutError: it did not end.
        """
        try:
            code = self.processes[name].wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{name} did not end in {timeout_s:g} s\n{self.logs()}") from None
        if code:
            raise RuntimeError(f"{name} ended with {code}\n{self.logs()}")
        return self.log(name)

    def do(self, name: str, command: str, cwd: Path | None = None, timeout_s: float = SECONDS) -> str:
        """Run a command of the README to its end."""
        self.start(name, command, cwd)
        return self.finish(name, timeout_s)

    def log(self, name: str) -> str:
        """What a process has printed so far."""
        return (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def logs(self, characters: int = 3000) -> str:
        """The end of every log, for the message of an error."""
        names = sorted(path.stem for path in (self.folder / "logs").glob("*.log"))
        return "\n".join(f"---- {name}\n{self.log(name)[-characters:]}" for name in names)

    def kill(self, name: str) -> None:
        """SIGKILL to one process alone, as `kill -9` does; its children are left to notice."""
        self.processes[name].kill()
        self.processes[name].wait()

    def alive(self) -> list[int]:
        """Ids of all processes with the mark of this sandbox, children of children too."""
        return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit() and self._marked(path)]

    def _marked(self, process: Path) -> bool:
        try:  # A zombie's environment is empty.
            return f"{MARK}={self.mark}".encode() in (process / "environ").read_bytes()
        except OSError:
            return False

    def stop(self, patience_s: float = 5.0) -> None:
        """End all processes, the patient way first.

        Raises:
            TimeoutError: some do not end.
        """
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            wait_until(self._all_ended, "an orderly end", patience_s)
        wait_until(self._killed, "killed processes to end")

    def _signal(self, sent: signal.Signals) -> None:
        for pid in self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)

    def _killed(self) -> bool:
        self._signal(signal.SIGKILL)  # Each time: some may have started others meanwhile.
        return self._all_ended()

    def _all_ended(self) -> bool:
        ended = [process.poll() is not None for process in self.processes.values()]
        return all(ended) and not self.alive()


@contextlib.contextmanager
def sandbox(folder: Path, ports: tuple[str, ...] = PORTS) -> Iterator[Sandbox]:
    """Processes that end with the block, however it ends."""
    made = Sandbox(folder, dict(zip(ports, free_ports(len(ports)), strict=True)))
    made.home.mkdir(parents=True)
    try:
        yield made
    finally:
        made.stop()


def connect(box: Sandbox) -> None:
    """The README's section of Flower's configuration file."""
    text = box.with_ports(readme_connection()).replace("/absolute/path/to", str(box.folder))
    (box.home / "config.toml").write_text(text, encoding="utf-8")


def listening(port: str) -> bool:
    """Whether somebody listens on a port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=1):
        return True
    return False


def start_superlink(box: Sandbox) -> None:
    """Keys, the SuperLink, and the registration of every SuperNode, as the README says."""
    for at, command in enumerate(
        [*readme_commands("mkdir"), *readme_commands("openssl"), *readme_commands("ssh-keygen")]
    ):
        box.do(f"keys-{at}", command)
    (superlink,) = readme_commands("flower-superlink")
    box.start("superlink", superlink)
    connect(box)
    wait_until(lambda: listening(box.ports["8000"]), "the SuperLink to listen")
    for at, command in enumerate(readme_commands("flwr", "supernode", "register")):
        box.do(f"register-{at}", command)


def start_supernode(box: Sandbox, partition: int, superlink_port: str | None = None) -> None:
    """A SuperNode as the README says; `superlink_port` leads it through a proxy."""
    command = box.with_ports(readme_commands("flower-supernode")[partition])
    if superlink_port is not None:
        command = command.replace(f":{box.ports['8000']}", f":{superlink_port}")
    box.start(f"supernode-{partition}", command)


@contextlib.contextmanager
def deployment(folder: Path, superlink_port: Callable[[str], str] = str) -> Iterator[Sandbox]:
    """A SuperLink and the README's SuperNodes, each with its device and its folder for joulewise's state.

    Args:
        folder: empty; keys, states and logs go there.
        superlink_port: from the SuperLink's port to the one that SuperNodes connect to.
    """
    with sandbox(folder) as box:
        start_superlink(box)
        for partition in range(len(readme_commands("flower-supernode"))):
            start_supernode(box, partition, superlink_port(box.ports["8000"]))
        yield box


def run_app(box: Sandbox, app: Path, name: str, settings: str = "", timeout_s: float = SECONDS) -> str:
    """Run an app as the README says, with `settings` for its run, and return what it printed."""
    start_app(box, app, name, settings)
    return box.finish(name, timeout_s)


def start_app(box: Sandbox, app: Path, name: str, settings: str = "") -> None:
    """The same, without waiting for its end."""
    (command,) = [command for command in readme_commands("flwr", "run", ".") if " deployment " in f"{command} "]
    box.start(name, f"{command} --run-config {shlex.quote(settings)}" if settings else command, cwd=app)


def printed(text: str, start: str) -> list[str]:
    """Lines of an app in what `flwr run --stream` printed."""
    return [line.strip() for line in text.splitlines() if line.strip().startswith(start)]
