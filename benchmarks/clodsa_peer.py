"""Runs CLoDSA's JSON configurations and says how long each took; started by `augment.py` with CLoDSA's own Python.

    python -m venv clodsa && clodsa/bin/pip install clodsa==1.2.48 keras tensorflow-cpu imageio pandas psutil future 'opencv-python-headless<5'

Reads paths of configurations, one a line, and answers each with a line: seconds, or "error" and what went wrong. One process for all, so that its
imports and its worker processes (joblib keeps them for five minutes) are warm and not measured. It imports nothing of Oteo.
"""

import contextlib
import sys
import time
import traceback


def main() -> None:
    """Answer until the input ends."""
    # CLoDSA and what it imports print; the answers must stay alone on the standard output.
    with contextlib.redirect_stdout(sys.stderr):
        from clodsa.augment import main as augment
    print("ready", flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                augment(line.strip())
        except Exception as error:  # noqa: BLE001  (whatever it is, the asker must be told)
            traceback.print_exc()
            print("error", repr(error).replace("\n", " "), flush=True)
        else:
            print(time.perf_counter() - begin, flush=True)


if __name__ == "__main__":
    main()
