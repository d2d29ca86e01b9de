"""Checkpoints that lie in memory."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Kept:
    """Checkpoints in memory."""

    data: dict[str, bytes] = field(default_factory=dict)

    def save(self, name: str, data: bytes) -> None:
        self.data[name] = data

    def load(self, name: str) -> bytes | None:
        return self.data.get(name)

    def saved(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.data if name.startswith(prefix))

    def discard(self, name: str) -> None:
        self.data.pop(name, None)
