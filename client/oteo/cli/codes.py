"""Exit codes of the command, and what to do about an error."""

from __future__ import annotations

from oteo.errors import OperationFailed, OteoApiError

OK, INTERNAL, USAGE, BAD_INPUT, NOT_FOUND, CONFLICT, NOT_ALLOWED, UNAVAILABLE, DEADLINE, CANCELLED, FAILED = range(11)
INTERRUPTED = 130

HELP = """Exit codes:
0 done,
1 a fault of Oteo's own,
2 wrong usage of the command,
3 bad input,
4 not found,
5 a conflict, or the state does not allow it, or not in this release,
6 no or a wrong token, or not allowed,
7 something that is needed does not answer, or a limit is reached,
8 the time was up,
9 the operation was cancelled,
10 the operation failed,
130 interrupted with Ctrl-C; a running operation goes on."""

BY_CODE = {
    "INVALID_ARGUMENT": BAD_INPUT,
    "OUT_OF_RANGE": BAD_INPUT,
    "NOT_FOUND": NOT_FOUND,
    "ALREADY_EXISTS": CONFLICT,
    "FAILED_PRECONDITION": CONFLICT,
    "ABORTED": CONFLICT,
    "UNIMPLEMENTED": CONFLICT,
    "UNAUTHENTICATED": NOT_ALLOWED,
    "PERMISSION_DENIED": NOT_ALLOWED,
    "UNAVAILABLE": UNAVAILABLE,
    "RESOURCE_EXHAUSTED": UNAVAILABLE,
    "DEADLINE_EXCEEDED": DEADLINE,
    "CANCELLED": CANCELLED,
}

_ADVICE_BY_REASON = {
    "NO_STACK": "start the stack on this machine with `oteo up`, or name a gateway: OTEO_ADDRESS=host:port and OTEO_TOKEN",
    "TOKEN_MISSING": "set OTEO_TOKEN, or let OTEO_HOME name the folder of the stack, whose file `token` holds it",
    "TOKEN_INVALID": "check OTEO_TOKEN and OTEO_HOME: the token is in the file `token` of the stack's folder",
    "TOKEN_EXPIRED": "get a new token from whoever gave you this one",
    "ROLE_MISSING": "`oteo whoami` shows your roles; ask an operator for another",
    "NOT_YOUR_OPERATION": "`oteo operations list` shows yours",
    "RATE_LIMITED": "wait a moment; `oteo whoami` shows your limits",
    "TOO_MANY_CALLS": "wait for a call to end; `oteo whoami` shows your limits",
    "QUOTA_EXCEEDED": "`oteo whoami` shows your limits and what is used of them",
    "DATASET_NOT_FOUND": "`oteo datasets list` shows those that there are",
    "MODEL_NOT_FOUND": "`oteo models list` shows those that there are",
    "DEPLOYMENT_NOT_FOUND": "`oteo deploy list` shows those that there are",
    "OPERATION_NOT_FOUND": "`oteo operations list` shows those that there are",
    "MODEL_EXISTS": "choose another name with --name, or delete the model with `oteo models delete`",
    "DATASET_EXISTS": "choose another name with --name (--fixed-id for an audit), or delete the dataset with `oteo datasets delete`",
    "DEPLOYMENT_EXISTS": "choose another name with --name, or give it another model with `oteo deploy update`",
    "WAIT_TIMEOUT": "the operation goes on; `oteo operations wait` takes it up again",
}
_ADVICE_BY_CODE = {
    "UNAVAILABLE": "`oteo status` shows what runs on this machine; `oteo up` starts what does not",
    "INTERNAL": "`oteo logs NAME` shows a service's log; it holds the incident that the message names",
    "DEADLINE_EXCEEDED": "try again, or give more time",
}


def exit_code(error: OteoApiError) -> int:
    """Give the exit code of an error."""
    if isinstance(error, OperationFailed):
        return CANCELLED if error.code == "CANCELLED" else FAILED
    return BY_CODE.get(error.code, INTERNAL)


def advice(error: OteoApiError) -> str:
    """Give what to do about an error; empty where its message says it already."""
    if error.code == "INTERNAL" and "incident" not in error.metadata:
        return ""
    return _ADVICE_BY_REASON.get(error.reason) or _ADVICE_BY_CODE.get(error.code, "")
