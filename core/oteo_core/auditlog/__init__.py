"""The audit log: who did what to which resource and with what outcome, in chains that show every change, gap and truncation.

It is not the check of a dataset's quality, which is augment's AuditDataset. No gRPC here. `record` says what may stand in the log, `chain` writes
one chain, `log` is what a process writes through, `verify` reads and judges, `atna` writes DICOM audit messages.
"""

from oteo_core.auditlog.heads import Head, HeadStore
from oteo_core.auditlog.keys import Keys, load_keys, make_key_file
from oteo_core.auditlog.log import AuditLog
from oteo_core.auditlog.record import Event
from oteo_core.auditlog.settings import AuditSettings
from oteo_core.auditlog.verify import Finding, Report, verify

__all__ = [
    "AuditLog",
    "AuditSettings",
    "Event",
    "Finding",
    "Head",
    "HeadStore",
    "Keys",
    "Report",
    "load_keys",
    "make_key_file",
    "verify",
]
