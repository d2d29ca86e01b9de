"""Make or raise all of Oteo's tables, then end: ``python -m oteo_gateway.migrate``.

Every service does the same for its own tables when it starts. A job that does it before an upgrade's first new process says at once, and in one place,
that a database cannot be raised.
"""

from __future__ import annotations

import argparse
import sys
import time

from oteo_core import telemetry
from oteo_core.errors import OteoError, Unavailable
from oteo_core.operations import OperationStore
from oteo_gateway.access.quota_store import QuotaStore
from oteo_gateway.auditing import operation_ends
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.feedback.store import CorrectionStore
from oteo_gateway.settings import GatewaySettings
from oteo_gateway.watching.store import WatchStore

_PATIENCE = 300.0
_PAUSE = 2.0
_LOG = telemetry.logger("oteo.migrate")


def migrate(database_url: str, *, patience: float = _PATIENCE) -> None:
    """Make or raise the tables of operations, deployments, watches, corrections, quotas and of what the audit log has of operations.

    Parameters
    ----------
    database_url
        SQLAlchemy URL.
    patience
        How long to wait for a database that does not answer yet, seconds.

    Raises
    ------
    Unavailable
        ``DATABASE_UNAVAILABLE``: it did not answer in that time.
    RuntimeError
        The tables are newer than this code.
    """
    end = time.monotonic() + patience
    while True:
        try:
            OperationStore(database_url).close()
            DeploymentStore(database_url).close()
            WatchStore(database_url).close()
            CorrectionStore(database_url).close()
            QuotaStore(database_url).close()
            operation_ends.create_tables(database_url)
        except Unavailable as error:
            if time.monotonic() >= end:
                raise
            _LOG.warning("the database is waited for", error=error.message)
            time.sleep(_PAUSE)
        else:
            return


def main() -> int:
    """Read the settings, migrate; give the exit status."""
    parser = argparse.ArgumentParser(prog="python -m oteo_gateway.migrate", description="Make or raise all of Oteo's tables.")
    parser.add_argument("--patience", type=float, default=_PATIENCE, help="seconds to wait for a database that does not answer yet")
    options = parser.parse_args()
    settings = GatewaySettings()
    telemetry.configure_logging(settings, "migrate")
    try:
        migrate(settings.database_url, patience=options.patience)
    except (OteoError, RuntimeError) as error:
        _LOG.error("the tables cannot be raised", error=str(error))
        return 1
    _LOG.info("the tables are as this version wants them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
