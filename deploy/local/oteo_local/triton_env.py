"""The embedded Triton: tritonserver and what it needs, in a virtual environment of its own.

``python -m oteo_local.triton_env --prefix .venv-triton`` builds it once (wheels of 140 MB, about 500 MB on disk, some twenty seconds) and does nothing the next time.
It is apart from Oteo's own environment because its NumPy must be older than 2.
"""

from __future__ import annotations

import argparse
import ctypes
import ctypes.util
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CONSTRAINTS = PACKAGE / "triton-constraints.txt"
BACKENDS = PACKAGE / "backends"
WHEEL = "nvidia-pytriton"
PACKAGES = ("numpy", "onnxruntime")
ALONE = "openvino"
"""Installed without what it names: NumPy is there, and its telemetry, which would ask the internet, is not wanted."""
STUB = "triton_python_backend_stub"
STAMP = "oteo-triton.json"


class TritonEnvironmentError(RuntimeError):
    """The embedded Triton cannot be built or is not there; the message says what to do."""


@dataclass(frozen=True)
class TritonEnvironment:
    """The embedded Triton in a folder.

    Parameters
    ----------
    prefix : Path
        The virtual environment's folder, absolute.
    """

    prefix: Path

    @property
    def server(self) -> Path:
        """The ``tritonserver`` program."""
        return self._triton / "bin" / "tritonserver"

    @property
    def backends(self) -> Path:
        """Folder of all backends, for ``--backend-directory``."""
        return self._triton / "backends"

    @property
    def caches(self) -> Path:
        """Folder of the response caches, for ``--cache-directory``."""
        return self._triton / "caches"

    @property
    def libraries(self) -> list[Path]:
        """Folders that the dynamic loader must search: the wheel's own libraries, then Python's."""
        return [self.prefix / "triton" / "nvidia_pytriton.libs", Path(self._stamp().get("libpython", ""))]

    @property
    def _triton(self) -> Path:
        # The wheel's own layout is kept: its programs find their libraries by a path relative to themselves.
        return self.prefix / "triton" / "pytriton" / "tritonserver"

    def ready(self) -> bool:
        """Say whether it is built, of the pinned versions, for this Python."""
        stamp = self._stamp()
        return all(stamp.get(key) == value for key, value in _wanted().items()) and self.server.is_file()

    def require(self) -> None:
        """Raise `TritonEnvironmentError` if it is not built."""
        if not self.ready():
            raise TritonEnvironmentError(
                f"no embedded Triton in {self.prefix}: build it with `{Path(sys.executable).name} -m oteo_local.triton_env --prefix {self.prefix}`"
            )

    def build(self, progress: Callable[[str], None] = lambda _: None) -> bool:
        """Build what is missing.

        Parameters
        ----------
        progress : callable
            Told in words what is being done.

        Returns
        -------
        bool
            False if everything was there already.

        Raises
        ------
        TritonEnvironmentError
            No shared Python library, no stub for this Python, or the packages cannot be had.
        """
        self.prefix.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.prefix.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # two builds at once would pull the environment from under each other
            if not self.ready():
                self._build(progress)
                return True
            return self._install_backends()
        finally:
            os.close(folder)

    def _build(self, progress: Callable[[str], None]) -> None:
        libpython = find_libpython()
        if self.prefix.exists():
            shutil.rmtree(self.prefix)
        progress(f"environment of the embedded Triton in {self.prefix}")
        _run([sys.executable, "-m", "venv", str(self.prefix)])
        python = str(self.prefix / "bin" / "python")
        _run([python, "-m", "pip", "install", "--quiet", "--constraint", str(CONSTRAINTS), *PACKAGES])
        _run([python, "-m", "pip", "install", "--quiet", "--no-deps", _pinned(ALONE)])
        with tempfile.TemporaryDirectory(prefix="oteo-triton-") as folder:
            progress(f"{_pinned(WHEEL)} (55 MB)")
            _run([python, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, _pinned(WHEEL)])
            self._unpack(next(Path(folder).glob("*.whl")))
        self._install_backends()
        # Last: its presence says that all of the above is whole.
        (self.prefix / STAMP).write_text(json.dumps({**_wanted(), "libpython": str(libpython)}, indent=1))

    def _unpack(self, wheel: Path) -> None:
        """Take the server, the Python backend, this Python's stub, the cache and the libraries out of the wheel."""
        stub = f"pytriton/tritonserver/python_backend_stubs/{_python_version()}/{STUB}"
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if stub not in names:
                raise TritonEnvironmentError(
                    f"{WHEEL} has no stub for Python {_python_version()}; make the environment with Python 3.11, 3.12 or 3.13"
                )
            wanted = (
                "pytriton/tritonserver/bin/",
                "pytriton/tritonserver/backends/",
                "pytriton/tritonserver/caches/",
                "nvidia_pytriton.libs/",
            )
            target = self.prefix / "triton"
            archive.extractall(target, [name for name in names if name.startswith(wanted) or name == stub or "/licenses/" in name])
        self.server.chmod(0o755)
        # Triton looks for the stub beside the Python backend's library.
        (target / stub).rename(self.backends / "python" / STUB)
        (self.backends / "python" / STUB).chmod(0o755)
        shutil.rmtree(target / "pytriton" / "tritonserver" / "python_backend_stubs")

    def _install_backends(self) -> bool:
        """Copy our backends, and the modules that they share, where they differ from what is installed; say whether any did."""
        modules = self.prefix / "lib" / f"python{_python_version()}" / "site-packages" / PACKAGE.name / BACKENDS.name
        targets = {source: self.backends / source.parent.name / source.name for source in sorted(BACKENDS.glob("*/model.py"))}
        targets |= {source: modules / source.name for source in sorted(BACKENDS.glob("*.py"))}
        changed = False
        for source, target in targets.items():
            if not target.is_file() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.with_suffix(".new")
                shutil.copyfile(source, temporary)
                temporary.replace(target)
                changed = True
        return changed

    def _stamp(self) -> dict[str, str]:
        try:
            stamp = json.loads((self.prefix / STAMP).read_text())
        except (OSError, ValueError):
            return {}
        return {str(key): str(value) for key, value in stamp.items()} if isinstance(stamp, dict) else {}


def default_prefix() -> Path:
    """Give the environment's usual place.

    ``OTEO_TRITON_ENV`` if set; else ``.venv-triton`` at the root of the repository that this file is in; else beside the environment that runs this.
    """
    if given := os.environ.get("OTEO_TRITON_ENV"):
        return Path(given).expanduser().resolve()
    root = PACKAGE.parent.parent.parent
    if (root / "constraints.txt").is_file() and (root / "deploy" / "local").is_dir():
        return root / ".venv-triton"
    return Path(sys.prefix).resolve().parent / ".venv-triton"


def find_libpython() -> Path:
    """Give the folder of this Python's shared library, which Triton's stub links to.

    Raises
    ------
    TritonEnvironmentError
        This Python has none (it was built without ``--enable-shared``) and the system has none of the same version either.
    """
    name = f"libpython{_python_version()}.so.1.0"
    folders = [sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib", sysconfig.get_config_var("LIBPL")]
    for folder in folders:
        if folder and (Path(folder) / name).is_file():
            return Path(folder).resolve()
    try:
        ctypes.CDLL(name)
    except OSError as error:
        raise TritonEnvironmentError(
            f"Triton's Python runtime needs {name}, which this Python ({sys.executable}) lacks. Debian: apt-get install libpython{_python_version()}; "
            "pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared; or make the environment with uv's or conda's Python"
        ) from error
    return Path("/usr/lib")


def _wanted() -> dict[str, str]:
    """What a finished environment's stamp must say."""
    return {
        "python": sys.version.split()[0],
        "base": sys.base_prefix,
        "constraints": hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest(),
    }


def _python_version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _pinned(name: str) -> str:
    """Give a requirement with the version that the constraints pin."""
    lines = (line.strip() for line in CONSTRAINTS.read_text().splitlines())
    return next(line for line in lines if line.startswith(f"{name}=="))


def _run(command: list[str]) -> None:
    """Run a step of the build; its output is shown only when it fails."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise TritonEnvironmentError(f"`{' '.join(command)}` ended with {done.returncode}:\n{tail}")


def main(arguments: list[str] | None = None) -> int:
    """Build the embedded Triton's environment from the command line."""
    parser = argparse.ArgumentParser(prog="python -m oteo_local.triton_env", description="Build the embedded Triton's environment, once.")
    parser.add_argument("--prefix", type=Path, default=None, help="folder of the environment (default: .venv-triton of the repository)")
    options = parser.parse_args(arguments)
    environment = TritonEnvironment((options.prefix or default_prefix()).expanduser().absolute())
    try:
        built = environment.build(lambda text: print(f"==> {text}", flush=True))
    except TritonEnvironmentError as error:
        print(f"oteo: {error}", file=sys.stderr)
        return 1
    if built:
        print(f"==> the embedded Triton is in {environment.prefix}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
