"""Long-running work: rows in a database, leases, the reconciler and the ``google.longrunning.Operations`` service."""

from __future__ import annotations

from oteo_core.operations.ids import new_operation_id, operation_name
from oteo_core.operations.manager import OperationManager
from oteo_core.operations.model import OperationRow, State
from oteo_core.operations.store import OperationStore

__all__ = ["OperationManager", "OperationRow", "OperationStore", "State", "new_operation_id", "operation_name"]
