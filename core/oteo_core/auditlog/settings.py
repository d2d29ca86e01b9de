"""Settings of the audit log."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from oteo_core.settings import CoreSettings


class AuditSettings(CoreSettings):
    """What a process that writes the audit log, and the command that reads it, take from ``OTEO_*`` environment variables."""

    audit_log: bool = Field(default=True, description="Whether the audit log is written; off only where nothing of patients is.")
    audit_folder: Path | None = Field(default=None, description="Folder of the audit log's chains; unset: audit below home.")
    audit_key_file: Path | None = Field(
        default=None,
        description="File of the audit log's keys, hexadecimal, the signing one first; unset: audit-key below home, made once.",
    )
    audit_heads: str = Field(
        default="", description="URI of the second place, which keeps signed heads of the chains; empty: audit in the artifact store."
    )
    audit_instance: str = Field(default="", description="Name of this writer's chain; empty: the host's.")
    audit_reads: bool = Field(default=True, description="Whether calls that only read are logged, too.")
    audit_without: Literal["refuse", "answer"] = Field(
        default="refuse",
        description="What predictions and reading calls get while the log cannot be written: refused, or answered and counted. Changes are always refused.",
    )
    audit_sync_predictions: bool = Field(
        default=False,
        description="Whether a prediction waits until its record is on the disk: safe from a power cut, and slower. Off: safe from a killed process.",
    )
    audit_sync_seconds: float = Field(
        default=1.0, gt=0, description="Records that nobody waits for are on the disk after so long, seconds."
    )
    audit_head_seconds: float = Field(
        default=10.0, gt=0, description="Period in which the chain's head is signed and kept elsewhere, seconds."
    )
    audit_segment_bytes: int = Field(
        default=8 * 1024 * 1024, ge=4096, description="Size at which a chain goes on in another file, bytes; every day does so, too."
    )
    audit_archive: bool = Field(default=False, description="Whether the chain's files are copied to the second place with each head.")
    audit_keep_days: int = Field(default=0, ge=0, description="Days that a chain's closed files are kept in the folder; 0: for ever.")

    @property
    def audit_place(self) -> Path:
        """Folder of the chains."""
        return self.audit_folder or self.home / "audit"

    @property
    def audit_key_place(self) -> Path:
        """File of the keys."""
        return self.audit_key_file or self.home / "audit-key"

    @property
    def audit_heads_place(self) -> str:
        """URI of the second place."""
        return self.audit_heads or f"{self.artifacts.rstrip('/')}/audit"
