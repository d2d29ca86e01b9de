"""The table of access as a page shows it: ``python -m oteo_gateway.access.table_page docs/security.md`` writes it between the page's two marks."""

from __future__ import annotations

import sys
from pathlib import Path

from oteo_core.access import Role
from oteo_gateway.access.table import TABLE, Row

BEGIN, END = "<!-- table of access: written by oteo_gateway.access.table_page -->", "<!-- end of the table -->"


def markdown() -> str:
    """Give the table: a row for each service and set of roles."""
    groups: dict[tuple[str, Row], list[str]] = {}
    for method, row in TABLE.items():
        service, _, name = method.lstrip("/").partition("/")
        # What a call counts as is no matter of who may call.
        groups.setdefault((service, Row(row.roles)), []).append(name)
    lines = [f"| service | RPCs | {' | '.join(Role)} |", f"|---|---|{':-:|' * len(Role)}"]
    for (service, row), names in groups.items():
        marks = ["✓" if row.roles is None or role in row.roles else "" for role in Role]
        lines.append(f"| `{service}` | {' '.join(names)} | {' | '.join(marks)} |")
    return "\n".join(lines)


def put_in(page: str) -> str:
    """Give a page with the table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown()}\n\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(put_in(path.read_text()))
