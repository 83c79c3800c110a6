"""Sensor trees for tests, laid out from the text files in tests/sensors, and a clock that tests set."""

from __future__ import annotations

from pathlib import Path

RECORDED = Path(__file__).parent / "sensors"


class SensorTree:
    """A tree of files like /sys, which a test changes as the kernel would."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        for line in (RECORDED / f"{name}.tree").read_text(encoding="utf-8").splitlines():
            if not line.startswith("#"):
                self._make(*line.split("\t"))

    def _make(self, name: str, content: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            path.symlink_to(content.removeprefix("-> "))
        else:
            path.write_text(content.replace("\\n", "\n") + "\n", encoding="utf-8")

    def __getitem__(self, name: str) -> Path:
        return self.root / "sys/class" / name

    def set(self, name: str, value: object) -> None:
        """Write a value, as the kernel would show it."""
        self[name].write_text(f"{value}\n", encoding="utf-8")

    def add(self, name: str, value: int) -> None:
        """Let a counter count."""
        self.set(name, int(self[name].read_text()) + value)

    def uevent(self, supply: str, **facts: object) -> None:
        """Change what a power supply tells."""
        path = self[f"power_supply/{supply}/uevent"]
        told = dict(line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines())
        told.update({f"POWER_SUPPLY_{name}": str(value) for name, value in facts.items()})
        path.write_text("".join(f"{name}={value}\n" for name, value in told.items()), encoding="utf-8")


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
