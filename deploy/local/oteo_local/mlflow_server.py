"""The MLflow server in one process: ``python -m oteo_local.mlflow_server --folder DIR --port N``.

``mlflow server`` imports MLflow twice, once in a parent that then only waits for the other: 250 MB and some seconds of a start in which every second of a core
counts. This does what that command does for one worker on SQLite, in the process that serves.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def serve(folder: Path, host: str, port: int) -> None:
    """Serve tracking, registry and artifacts until a signal.

    Parameters
    ----------
    folder : Path
        Holds ``mlflow.db`` and ``artifacts/``.
    host : str
        Address to listen on.
    port : int
        Port to listen on.
    """
    database = f"sqlite:///{folder / 'mlflow.db'}"
    artifact_root = "mlflow-artifacts:/"  # clients send artifacts through the server
    # Before anything of MLflow is imported: its server reads these when it is.
    os.environ.update(
        {
            "_MLFLOW_SERVER_FILE_STORE": database,
            "_MLFLOW_SERVER_ARTIFACT_ROOT": artifact_root,
            "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
            "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(folder / "artifacts"),
            "_MLFLOW_SGI_NAME": "uvicorn",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }
    )
    import uvicorn
    from mlflow.server import handlers

    handlers.initialize_backend_stores(database, None, artifact_root)
    uvicorn.run("mlflow.server.fastapi_app:app", host=host, port=port, access_log=False)


def main() -> None:
    """Serve as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m oteo_local.mlflow_server", description="Run the MLflow server on SQLite and a local folder."
    )
    parser.add_argument("--folder", type=Path, required=True, help="folder of the database and the artifacts")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    serve(options.folder.absolute(), options.host, options.port)


if __name__ == "__main__":
    main()
