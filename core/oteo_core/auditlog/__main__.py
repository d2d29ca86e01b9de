"""``python -m oteo_core.auditlog``."""

from __future__ import annotations

import sys

from oteo_core.auditlog.command import main

sys.exit(main())
