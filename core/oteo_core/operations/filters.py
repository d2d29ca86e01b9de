"""The filter of `ListOperations` (AIP-160, of which these terms are known): ``done=true``, ``done=false``, ``caller="NAME"``, joined by AND."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from oteo_core.errors import InvalidArgument

_AND = re.compile(r"\s+AND\s+")
_DONE = {"done=true": True, "done": True, "done=false": False, "notdone": False, "-done": False}


@dataclass(frozen=True, slots=True)
class OperationsFilter:
    """Which operations are listed.

    Attributes
    ----------
    done
        Those that have ended (True), or not (False); None: all.
    caller
        Those that this caller began; None: all.
    """

    done: bool | None = None
    caller: str | None = None

    @classmethod
    def read(cls, text: str) -> OperationsFilter:
        """Read a filter.

        Raises
        ------
        InvalidArgument
            ``INVALID_FILTER``.
        """
        done: bool | None = None
        caller: str | None = None
        # A caller's name is quoted and may hold anything: what stands in quotes is not looked into for AND.
        quoted: list[str] = []

        def lift(found: re.Match[str]) -> str:
            quoted.append(found.group())
            return f'"{len(quoted) - 1}"'

        lifted = re.sub(r'"(?:[^"\\]|\\.)*"', lift, text.strip())
        for term in _AND.split(lifted) if lifted else []:
            plain = "".join(term.split())
            named = re.fullmatch(r'caller="(\d+)"', plain)
            if named is not None and caller is None:
                try:
                    caller = str(json.loads(quoted[int(named.group(1))]))
                    continue
                except (ValueError, IndexError):
                    pass
            elif plain.lower() in _DONE and done is None:
                done = _DONE[plain.lower()]
                continue
            raise InvalidArgument(
                f'the filter {text!r} is not known: done=true or done=false, caller="NAME", or both with AND',
                reason="INVALID_FILTER",
                field="filter",
            )
        return cls(done, caller)

    def write(self) -> str:
        """Give the filter as text, which `read` reads."""
        terms = [] if self.done is None else [f"done={str(self.done).lower()}"]
        if self.caller is not None:
            terms.append(f"caller={json.dumps(self.caller)}")
        return " AND ".join(terms)
