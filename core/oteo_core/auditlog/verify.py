"""Reads a log and says what was changed, is missing, or was cut off, and where.

What it needs: the folder of the chains, the key, and the heads of the second place. Without the key it sees damage and clumsy changes, not those of
somebody who computes the hashes anew; without the heads it does not see what was cut off the end, or a chain that was taken away whole, unless another
chain names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from oteo_core.auditlog.heads import Head, Heads
from oteo_core.auditlog.keys import Keys
from oteo_core.auditlog.record import GENESIS, BadRecord, read_line
from oteo_core.auditlog.segments import chains_of, first_of, lines_of, segments_of

Anchor = tuple[int, str]
"""Number of a record and its hash."""

FINDINGS: Mapping[str, str] = {
    "CHANGED": "a line is not what was written",
    "GAP": "records are missing between two others",
    "ORDER": "a record does not follow the one before it",
    "BEGINNING_MISSING": "the chain does not begin where it should",
    "TRUNCATED": "the chain had come farther than it is",
    "REWRITTEN": "the chain is another than it was",
    "CHAIN_MISSING": "a chain is not there",
    "HEAD_MISSING": "a chain has no head in the second place",
    "HEAD_CHANGED": "a head is not what was signed",
    "COPIES_DIFFER": "two copies of a file are not the same",
}
"""What makes a log not intact."""

NOTES: Mapping[str, str] = {
    "TORN_TAIL": "the last line is not whole: its writer was killed, or writes just now",
    "RECOVERED": "a line that was torn when its writer was killed lies aside",
    "CHAIN_LEFT": "a writer found this chain damaged and did not continue it",
    "NOT_WRITTEN": "records could not be written while the disk was full or away",
    "FORGOTTEN": "the beginning was kept long enough and taken away",
    "CLOCK_BACK": "the clock went back",
}
"""What should be known of a log that is intact."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes
    ----------
    code
        A key of `FINDINGS` or `NOTES`.
    chain
        The chain.
    where
        File and line, or file and byte; empty where it has no place.
    message
        A sentence.
    """

    code: str
    chain: str
    where: str
    message: str

    @property
    def is_note(self) -> bool:
        """Whether the log is intact all the same."""
        return self.code in NOTES


@dataclass(frozen=True, slots=True)
class ChainSummary:
    """One chain as it was found: its first and last numbers and the hash of the last."""

    chain: str
    first: int
    last: int
    hash: str
    records: int
    begin: str
    end: str


@dataclass
class Report:
    """What a verification found."""

    findings: list[Finding] = field(default_factory=list)
    chains: list[ChainSummary] = field(default_factory=list)
    with_key: bool = False
    with_heads: bool = False

    @property
    def intact(self) -> bool:
        """Whether nothing was changed, is missing or was cut off, as far as can be seen."""
        return all(finding.is_note for finding in self.findings)


@dataclass
class _Chain:
    """What is known of a chain while it is read."""

    name: str
    first: int = -1
    last: int = -1
    hash: str = ""
    records: int = 0
    begin: str = ""
    end: str = ""
    forgotten: int = -1
    marks: frozenset[int] = frozenset()
    """Numbers of the records that heads speak of."""
    marked: dict[int, str] = field(default_factory=dict)
    """Their hashes."""


def verify(folders: Sequence[Path], keys: Keys | None, heads: Heads | None = None, anchors: Mapping[str, Anchor] | None = None) -> Report:
    """Verify a log.

    Parameters
    ----------
    folders
        Folders of chains: the writer's own, and archives; a chain may lie in several, in parts or twice.
    keys
        None: signatures are not checked.
    heads
        The second place's; None: not compared.
    anchors
        By chain, the last record before its first file, where older files were taken away by another than the writer.
    """
    return _Verification(folders, keys, heads, anchors or {}).run()


class _Verification:
    def __init__(self, folders: Sequence[Path], keys: Keys | None, heads: Heads | None, anchors: Mapping[str, Anchor]) -> None:
        self._folders = folders
        self._keys = keys
        self._heads = heads
        self._anchors = anchors
        self._report = Report(with_key=keys is not None, with_heads=heads is not None)
        self._chains: dict[str, _Chain] = {}
        self._claims: list[tuple[str, Anchor, str]] = []

    def _find(self, code: str, chain: str, where: str = "", more: str = "") -> None:
        sentence = FINDINGS.get(code) or NOTES[code]
        self._report.findings.append(Finding(code, chain, where, f"{sentence}: {more}" if more else sentence))

    def run(self) -> Report:
        for name in sorted({name for folder in self._folders for name in chains_of(folder)}):
            self._chains[name] = _Chain(name, marks=self._marks(name))
            self._read(self._chains[name])
        if self._heads is not None:
            self._compare_heads(self._heads)
        self._compare_claims()
        self._report.chains = [
            ChainSummary(chain.name, chain.first, chain.last, chain.hash, chain.records, chain.begin, chain.end)
            for chain in self._chains.values()
        ]
        return self._report

    def _files(self, name: str) -> list[Path]:
        """Give a chain's files, of copies the longest."""
        found: dict[str, Path] = {}
        for folder in self._folders:
            for path in segments_of(folder / name):
                other = found.get(path.name)
                if other is None:
                    found[path.name] = path
                    continue
                short, long = sorted((other, path), key=lambda one: one.stat().st_size)
                found[path.name] = long
                if not _begins_with(long, short):
                    self._find("COPIES_DIFFER", name, path.name)
        return [found[key] for key in sorted(found)]

    def _read(self, chain: _Chain) -> None:
        files = self._files(chain.name)
        expected, previous = self._start(chain, files)
        for path in files:
            if first_of(path) != expected and path.stat().st_size:
                self._find("GAP", chain.name, path.name, f"it begins with {first_of(path)}, and {expected} was next")
                expected, previous = first_of(path), None
            for number, (place, line) in enumerate(lines_of(path), 1):
                where = f"{path.name}:{number}"
                try:
                    record = read_line(line, self._keys)
                except BadRecord as error:
                    if path == files[-1] and not line.endswith(b"\n"):
                        self._find("TORN_TAIL", chain.name, f"{path.name} byte {place}")
                    else:
                        self._find("CHANGED", chain.name, where, str(error))
                        expected, previous = expected + 1, None
                    continue
                if record["chain"] != chain.name:
                    self._find("CHANGED", chain.name, where, f"it belongs to the chain {record['chain']}")
                    continue
                if record["seq"] > expected:
                    self._find("GAP", chain.name, where, f"{expected} to {record['seq'] - 1} are missing")
                elif record["seq"] < expected or (previous is not None and record["prev"] != previous):
                    self._find("ORDER", chain.name, where, f"it is {record['seq']}, and {expected} was next")
                expected, previous = record["seq"] + 1, record["hash"]
                self._take(chain, record, where)
        if chain.first > 0 and chain.name not in self._anchors:
            if chain.forgotten >= chain.first - 1:
                self._find("FORGOTTEN", chain.name, more=f"0 to {chain.first - 1}")
            else:
                self._find("BEGINNING_MISSING", chain.name, files[0].name, f"0 to {chain.first - 1} are not there")

    def _start(self, chain: _Chain, files: Sequence[Path]) -> tuple[int, str | None]:
        if chain.name in self._anchors:
            seq, digest = self._anchors[chain.name]
            return seq + 1, digest
        if not files or first_of(files[0]) == 0:
            return 0, GENESIS
        # Whether it may begin here is said by its own records, which are read first.
        return first_of(files[0]), None

    def _take(self, chain: _Chain, record: dict[str, Any], where: str) -> None:
        if chain.first < 0:
            chain.first, chain.begin = record["seq"], record["time"]
        if record["time"] < chain.end:
            self._find("CLOCK_BACK", chain.name, where)
        chain.last, chain.hash, chain.end = record["seq"], record["hash"], record["time"]
        chain.records += 1
        if record["seq"] in chain.marks:
            chain.marked[record["seq"]] = record["hash"]
        if record["kind"] == "log":
            self._read_own(chain, record, where)

    def _marks(self, name: str) -> frozenset[int]:
        if self._heads is None:
            return frozenset()
        heads = [*self._heads.closed.get(name, []), *([self._heads.newest[name]] if name in self._heads.newest else [])]
        return frozenset(head.seq for head in heads)

    def _read_own(self, chain: _Chain, record: dict[str, Any], where: str) -> None:
        used = record.get("used", {})
        match record["action"]:
            case "log.start":
                for peer, (seq, digest) in record.get("peers", {}).items():
                    self._claims.append((peer, (seq, digest), f"{chain.name} {where}"))
            case "log.recovered":
                self._find("RECOVERED", chain.name, where, f"{used.get('bytes', 0)} bytes")
            case "log.left":
                self._find("CHAIN_LEFT", str(used.get("chain", "")), f"{chain.name} {where}", str(record.get("reason", "")))
            case "log.gap":
                self._find("NOT_WRITTEN", chain.name, where, f"{used.get('count', 0)} records")
            case "log.forgotten":
                chain.forgotten = max(chain.forgotten, int(used.get("last", -1)))

    def _compare_heads(self, heads: Heads) -> None:
        for path in heads.bad:
            self._find("HEAD_CHANGED", path.split("/")[0], path)
        for name in self._chains:
            if name not in heads.newest and not any(path.startswith(f"{name}/") for path in heads.bad):
                self._find("HEAD_MISSING", name)
        for name, head in heads.newest.items():
            self._compare(name, head, "its head")
            for closed in heads.closed.get(name, []):
                self._compare(name, closed, f"the head of {closed.segment:016d}.jsonl")
        for name in heads.closed.keys() - heads.newest.keys():
            if name not in self._chains:
                self._find("CHAIN_MISSING", name, more="the second place has heads of its files")

    def _compare(self, name: str, head: Head, who: str) -> None:
        chain = self._chains.get(name)
        if chain is None:
            self._once("CHAIN_MISSING", name, f"{who} says that it had come to {head.seq} by {head.time}")
        elif head.seq > chain.last:
            self._find("TRUNCATED", name, more=f"it ends with {chain.last}, and {who} says that it had come to {head.seq} by {head.time}")
        elif head.seq >= chain.first and chain.marked.get(head.seq) != head.hash:
            self._find("REWRITTEN", name, more=f"its record {head.seq} is not the one that {who} was signed for")

    def _once(self, code: str, chain: str, more: str) -> None:
        if not any(finding.code == code and finding.chain == chain for finding in self._report.findings):
            self._find(code, chain, more=more)

    def _compare_claims(self) -> None:
        """Compare what chains say of each other."""
        asked: dict[str, dict[int, tuple[str, str]]] = {}
        for name, (seq, digest), who in self._claims:
            chain = self._chains.get(name)
            if chain is None:
                self._once("CHAIN_MISSING", name, f"{who} knew it")
            elif seq > chain.last:
                self._once("TRUNCATED", name, f"it ends with {chain.last}, and {who} knew its record {seq}")
            elif seq >= chain.first:
                asked.setdefault(name, {})[seq] = (digest, who)
        for name, records in asked.items():
            for record in self._again(name, records):
                digest, who = records[record["seq"]]
                if record["hash"] != digest:
                    self._once("REWRITTEN", name, f"its record {record['seq']} is not the one that {who} knew")

    def _again(self, name: str, wanted: Mapping[int, Any]) -> Iterator[dict[str, Any]]:
        files = self._files(name)
        for path, following in zip(files, [*(first_of(path) for path in files[1:]), 1 << 62], strict=True):
            if not any(first_of(path) <= seq < following for seq in wanted):
                continue
            for _, line in lines_of(path):
                try:
                    record = read_line(line, None)
                except BadRecord:
                    continue
                if record["seq"] in wanted:
                    yield record


def _begins_with(long: Path, short: Path) -> bool:
    with long.open("rb") as one, short.open("rb") as other:
        while block := other.read(1 << 20):
            if one.read(len(block)) != block:
                return False
    return True
