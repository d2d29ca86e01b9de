"""``oteo audit``, and ``python -m oteo_core.auditlog`` where there is no ``oteo``: verify, show and export the audit log, without any server."""

from __future__ import annotations

import argparse
import json
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, TextIO

from oteo_core.artifacts import split_uri
from oteo_core.auditlog import atna
from oteo_core.auditlog.follow import Follower, tls
from oteo_core.auditlog.heads import Heads, HeadStore
from oteo_core.auditlog.keys import Keys, load_keys
from oteo_core.auditlog.reading import OTHERS, Wanted, records
from oteo_core.auditlog.settings import AuditSettings
from oteo_core.auditlog.verify import Report, verify
from oteo_core.errors import NotFound, OteoError

INTACT, CHANGED, USAGE, UNREADABLE = 0, 1, 2, 3


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program, description="The audit log: who did what to which resource, with what outcome. Not the check of a dataset's quality."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("folder", nargs="*", help="folders or URIs of the log; default: this machine's (OTEO_AUDIT_FOLDER, OTEO_HOME)")
    shared.add_argument("--json", action="store_true", help="JSON on standard output")

    check = commands.add_parser(
        "verify",
        parents=[shared],
        help="say what was changed, is missing or was cut off",
        epilog="Exit codes: 0 intact, 1 not intact, 2 wrong usage, 3 the log, its key or its heads cannot be read.",
    )
    check.add_argument("--key-file", type=Path, help="the log's keys; default: OTEO_AUDIT_KEY_FILE, else audit-key below OTEO_HOME")
    check.add_argument("--no-key", action="store_true", help="check hashes alone: shows damage, not a forger")
    check.add_argument("--heads", default="", help="URI of the second place; default: OTEO_AUDIT_HEADS, else audit in the artifact store")
    check.add_argument("--no-heads", action="store_true", help="compare with no second place: does not show what was cut off the end")
    check.add_argument(
        "--anchor",
        action="append",
        default=[],
        metavar="CHAIN:SEQ:HASH",
        help="last record of a chain before its first file; again for more",
    )

    chosen = argparse.ArgumentParser(add_help=False)
    chosen.add_argument("--since", default="", metavar="TIME", help="UTC, 2026-11-30 or 2026-11-30T06:00")
    chosen.add_argument("--until", default="", metavar="TIME", help="UTC; the first moment that is not wanted")
    for name in ("actor", "action", "resource", "outcome", "chain"):
        chosen.add_argument(f"--{name}", default="", help="only these; * and ? stand for others")
    show = commands.add_parser("show", parents=[shared, chosen], help="show records, in the order of time")
    show.add_argument("--limit", type=int, default=0, help="the last so many")
    export = commands.add_parser("export", parents=[shared, chosen], help="write records for other systems")
    export.add_argument("--format", choices=("jsonl", "atna"), default="jsonl", help="lines as they are, or DICOM audit messages")
    export.add_argument("--syslog", action="store_true", help="with atna: each message in syslog's frame, its length before it (RFC 5425)")
    export.add_argument("--site", default="", help="with atna: AuditEnterpriseSiteID")
    export.add_argument("--output", type=Path, help="file; default: standard output")
    follow = commands.add_parser("follow", help="send audit messages to an audit repository as they are written: syslog over TLS")
    follow.add_argument("folder", nargs="?", type=Path, help="folder of the log; default: this machine's")
    follow.add_argument("--to", required=True, metavar="HOST:PORT", help="the repository; 6514 is syslog over TLS")
    follow.add_argument("--ca", type=Path, help="PEM certificates that the repository's is checked against; default: the system's")
    follow.add_argument("--cert", type=Path, help="PEM certificate of our own, for repositories that ask for one")
    follow.add_argument("--key", type=Path, help="its PEM key")
    follow.add_argument("--position", type=Path, help="file of what was sent; default: audit-sent.json beside the folder")
    follow.add_argument("--site", default="", help="AuditEnterpriseSiteID")
    follow.add_argument("--once", action="store_true", help="send what there is, and end")
    return parser


def main(arguments: Sequence[str] | None = None, program: str = "python -m oteo_core.auditlog") -> int:
    """Run a command and give its exit code."""
    options = _parser(program).parse_args(arguments)
    try:
        with ExitStack() as stack:
            settings = AuditSettings()
            if options.command == "follow":
                return _follow(options, options.folder or settings.audit_place)
            folders = [_local(place, stack, settings) for place in options.folder] or [settings.audit_place]
            missing = [str(folder) for folder in folders if not folder.is_dir()]
            if missing:
                raise NotFound(f"there is no audit log in {', '.join(missing)}", reason="AUDIT_LOG_NOT_FOUND")
            if options.command == "verify":
                return _verify(options, settings, folders)
            if options.command == "show":
                return _show(options, folders)
            return _export(options, folders)
    except OteoError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        return UNREADABLE
    except BrokenPipeError:
        # Whoever read the output has seen enough.
        return INTACT
    except OSError as error:
        print(f"UNREADABLE: {error}", file=sys.stderr)
        return UNREADABLE


def _local(place: str, stack: ExitStack, settings: AuditSettings) -> Path:
    """Give a folder of this machine; what a URI names is copied to a temporary one first."""
    if "://" not in place:
        return Path(place).expanduser()
    store, path = split_uri(place, **settings.artifact_options)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oteo-audit-")))
    store.get_tree(path, folder)
    return folder


def _anchors(given: Sequence[str]) -> dict[str, tuple[int, str]]:
    found = {}
    for text in given:
        chain, seq, digest = [*text.split(":"), "", ""][:3]
        if not chain or not seq.isdigit() or len(digest) != 64:
            print(f"--anchor {text}: give CHAIN:SEQ:HASH", file=sys.stderr)
            raise SystemExit(USAGE)
        found[chain] = (int(seq), digest)
    return found


def _verify(options: argparse.Namespace, settings: AuditSettings, folders: Sequence[Path]) -> int:
    anchors = _anchors(options.anchor)
    keys: Keys | None = None if options.no_key else load_keys(options.key_file or settings.audit_key_place)
    heads: Heads | None = None
    if not options.no_heads:
        store, path = split_uri(options.heads or settings.audit_heads_place, **settings.artifact_options)
        heads = HeadStore(store, path, keys).all()
    report = verify(folders, keys, heads, anchors)
    if options.json:
        json.dump(_document(report), sys.stdout, indent=2)
        print()
    else:
        _tell(report, sys.stdout)
    return INTACT if report.intact else CHANGED


def _document(report: Report) -> dict[str, Any]:
    return {
        "intact": report.intact,
        "signatures_checked": report.with_key,
        "heads_compared": report.with_heads,
        "chains": [
            {name: getattr(chain, name) for name in ("chain", "first", "last", "hash", "records", "begin", "end")}
            for chain in report.chains
        ],
        "findings": [
            {"code": one.code, "note": one.is_note, "chain": one.chain, "where": one.where, "message": one.message}
            for one in report.findings
        ],
    }


def _tell(report: Report, out: TextIO) -> None:
    for chain in report.chains:
        print(f"{chain.chain}: {chain.records} records, {chain.first} to {chain.last}, {chain.begin} to {chain.end}", file=out)
    for finding in sorted(report.findings, key=lambda one: one.is_note):
        print(
            f"{'note' if finding.is_note else 'FOUND'} {finding.code} {finding.chain} {finding.where}".rstrip() + f": {finding.message}",
            file=out,
        )
    if not report.with_key:
        print("signatures were not checked: whoever changes a record could have computed its hash anew", file=out)
    if not report.with_heads:
        print("no second place was asked: records cut off the end, or a whole chain, may be missing", file=out)
    print("the log is intact" if report.intact else "the log is NOT intact", file=out)


def _wanted(options: argparse.Namespace) -> Wanted:
    names = ("since", "until", "actor", "action", "resource", "outcome", "chain")
    return Wanted(**{name: getattr(options, name) for name in names})


def _show(options: argparse.Namespace, folders: Sequence[Path]) -> int:
    found = records(folders, _wanted(options))
    if options.limit:
        kept: list[dict[str, Any]] = []
        for record in found:
            kept = [*kept[-options.limit + 1 :], record] if options.limit > 1 else [record]
        found = iter(kept)
    for record in found:
        if options.json:
            print(json.dumps({key: value for key, value in record.items() if key not in OTHERS}, ensure_ascii=False))
        else:
            print(_line(record))
    return INTACT


def _line(record: dict[str, Any]) -> str:
    outcome = " ".join(str(record[name]) for name in ("code", "reason") if record.get(name)) or record["kind"]
    used = " ".join(f"{name}={value}" for name, value in record.get("used", {}).items())
    who = f"{record.get('actor', '-')}{'@' + record['source'] if record.get('source') else ''}"
    return f"{record['time']} {record['chain']}:{record['seq']} {who} {record['action']} {record.get('resource', '-')} {outcome} {used}".rstrip()


def _follow(options: argparse.Namespace, folder: Path) -> int:
    connect = tls(options.to, ca=options.ca, certificate=options.cert, key=options.key)
    follower = Follower(folder, options.position or folder.parent / "audit-sent.json", connect, site=options.site)
    if not options.once:
        with suppress(KeyboardInterrupt):
            follower.run()
        follower.close()
        return INTACT
    count = follower.send_new()
    follower.close()
    print(f"{count} messages sent", file=sys.stderr)
    return INTACT


def _export(options: argparse.Namespace, folders: Sequence[Path]) -> int:
    host = socket.gethostname()
    out = sys.stdout.buffer if options.output is None else options.output.open("wb")
    try:
        for record in records(folders, _wanted(options)):
            if options.format == "jsonl":
                out.write(json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode() + b"\n")
                continue
            body = atna.message(record, options.site)
            if options.syslog:
                framed = atna.syslog(record, body, host)
                out.write(f"{len(framed)} ".encode() + framed)
            else:
                out.write(body + b"\n")
        out.flush()
    finally:
        if options.output is not None:
            out.close()
    return INTACT
