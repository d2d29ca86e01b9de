"""Where the stack keeps what, below ``OTEO_HOME``."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

# A unix socket's path has at most 107 bytes; Ray's longest below its folder is about 70: session_<time>_<pid>/sockets/plasma_store, and supervisord's is shorter.
LONGEST_RUN_PATH = 30


@dataclass(frozen=True)
class Layout:
    """Files and folders of one home.

    Parameters
    ----------
    home : Path
        ``OTEO_HOME``, absolute.
    """

    home: Path

    @property
    def stack_id(self) -> str:
        """A mark of this home, the same at every start; a home that was moved or copied is another stack."""
        return hashlib.sha256(os.fsencode(os.path.realpath(self.home))).hexdigest()[:16]

    @property
    def endpoints(self) -> Path:
        """Addresses of everything, JSON."""
        return self.home / "endpoints.json"

    @property
    def token(self) -> Path:
        """The token that every call must bear."""
        return self.home / "token"

    @property
    def ray_token(self) -> Path:
        """The token of Ray's dashboard and processes."""
        return self.home / "ray-token"

    @property
    def logs(self) -> Path:
        """Logs of the processes."""
        return self.home / "logs"

    @property
    def config(self) -> Path:
        """The supervisord configuration, written anew at every start."""
        return self.home / "supervisord.conf"

    @property
    def processes(self) -> Path:
        """Command line and environment of every process, JSON, written anew at every start."""
        return self.home / "processes.json"

    @property
    def lock(self) -> Path:
        """Held while the stack is started or stopped."""
        return self.home / ".lock"

    @property
    def artifacts(self) -> Path:
        """The artifact store."""
        return self.home / "artifacts"

    @property
    def repository(self) -> Path:
        """Triton's model repository."""
        return self.home / "model-repository"

    @property
    def mlflow(self) -> Path:
        """MLflow's database and artifacts."""
        return self.home / "mlflow"

    @property
    def run(self) -> Path:
        """Sockets and Ray's sessions, by a path short enough for a unix socket.

        It is ``{home}/run``; where that is too long, a link to it in the temporary folder.
        """
        real = self.home / "run"
        return real if len(os.fsencode(real)) <= LONGEST_RUN_PATH else Path(tempfile.gettempdir()) / f"oteo-{self.stack_id}"

    @property
    def socket(self) -> Path:
        """Where supervisord listens."""
        return self.run / "supervisor.sock"

    @property
    def pid_file(self) -> Path:
        """Process id of supervisord."""
        return self.home / "run" / "supervisord.pid"

    @property
    def ray(self) -> Path:
        """Folder of Ray's sessions."""
        return self.run / "ray"

    def create(self) -> None:
        """Make folders and tokens where they are missing."""
        self.home.mkdir(parents=True, exist_ok=True)
        for folder in (self.logs, self.artifacts, self.repository, self.mlflow, self.home / "run" / "ray"):
            folder.mkdir(parents=True, exist_ok=True)
        (self.home / "run").chmod(0o700)
        for file in (self.token, self.ray_token):
            if not file.is_file() or not file.read_text().strip():
                write_private(file, secrets.token_urlsafe(32) + "\n")
        link = self.run
        if link != self.home / "run" and not (link.is_symlink() and link.readlink() == self.home / "run"):
            # In a folder that everybody may write to, what lies there already may be somebody else's.
            if link.is_symlink() and link.lstat().st_uid == os.getuid():
                link.unlink()
            link.symlink_to(self.home / "run")

    def remove_link(self) -> None:
        """Remove the short link, if there is one."""
        if self.run != self.home / "run" and self.run.is_symlink():
            self.run.unlink()


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read; a reader sees the old or the new, never half."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    temporary.replace(file)
