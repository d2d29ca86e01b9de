"""What of the gateway's work goes into the audit log (`oteo_core.auditlog`): calls, predictions, refusals, and the ends of operations."""
