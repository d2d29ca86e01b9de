"""The pre-flight check of a dataset: what would spoil a training, said before anyone trains."""

from __future__ import annotations

from oteo_augment.auditing.audit import AuditHooks, AuditOutcome, AuditPlan, audit_dataset
from oteo_augment.auditing.catalogue import NAMES, choose

__all__ = ["NAMES", "AuditHooks", "AuditOutcome", "AuditPlan", "audit_dataset", "choose"]
