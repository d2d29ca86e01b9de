"""The same for asyncio: ``python predict_asyncio.py DEPLOYMENT FOLDER``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import oteo


async def main(deployment: str, images: list[Path]) -> None:
    """Print the decision for each image."""
    async with oteo.AsyncClient() as client:
        try:
            await client.predict(deployment, images[0], timeout=10)
        except oteo.OteoApiError as error:
            print(f"{error.code} {error.reason}: {error.message}; again after {error.retry_after} s")
        async for item in client.predict_many(deployment, images):
            said = item.response.classification.decision if item.response else f"no answer: {item.error}"
            print(f"{item.image}: {said}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sorted(Path(sys.argv[2]).glob("*.png"))))
