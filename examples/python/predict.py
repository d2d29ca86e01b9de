"""Answer for images: one, and a folder of them through one stream.

``python predict.py DEPLOYMENT FOLDER``; address and token come from ``OTEO_ADDRESS`` and ``OTEO_TOKEN``, or from the stack on this machine.
"""

from __future__ import annotations

import sys
from pathlib import Path

import oteo


def main(deployment: str, folder: Path) -> None:
    """Print the decision for each image."""
    images = sorted(folder.glob("*.png"))
    with oteo.Client() as client:
        first = client.predict(deployment, images[0], timeout=10)
        print(f"{images[0].name}: {first.classification.decision}")
        # In the order of the images; one that fails does not end the stream.
        for item in client.predict_many(deployment, images, window=8):
            said = item.response.classification.decision if item.response else f"no answer: {item.error}"
            print(f"{item.image}: {said}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
