"""The child: mutates, opens, decodes and prepares, and says line by line what came of it. Run as ``python -m fuzzing.child``.

The input that is worked on lies in a file, so that whoever started the child finds it where the child died.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import os
import random
import re
import resource
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from fuzzing.mutations import mutated
from fuzzing.seeds import Seed, drawn, real
from oteo_core.errors import OteoError
from oteo_core.images import ImageLimits, InputPolicy, prepare
from oteo_core.images.sequences import open_image

LIMITS = ImageLimits(max_bytes=32 << 20, max_pixels=4_000_000, max_frames=10_000, max_unpacked=32 << 20)
MOST_MEMORY = 1 << 30
"""Bytes of address space beyond what the child has once it is loaded."""
SLOW_SECONDS = 2.0
"""Inputs that take longer are kept beside the corpus, to be looked at."""
_POLICIES = (InputPolicy(16, 16, 3, "uint8", "letterbox"), InputPolicy(16, 12, 1, "float32", bit_depth=12))
_FRAMES = 3


def outcome(data: bytes, name: str = "") -> str:
    """Do with a file what a prediction does, and say what came of it: "answered", a reason, or "!" and what must not be."""
    try:
        opened = open_image(data, LIMITS, name)
        reasons = set()
        for decode in itertools.islice(opened.decoders(0), _FRAMES):
            try:
                frame = decode()
                for policy in _POLICIES:
                    prepare(frame.pixels, policy, frame.bit_depth)
            except OteoError as error:
                reasons.add(error.reason)
        return ",".join(sorted(reasons)) or "answered"
    except OteoError as error:
        return error.reason
    except Exception as error:  # noqa: BLE001 (whatever it is, it is what is looked for)
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"!{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:120]}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--start", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--current", type=Path, required=True)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--real", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    # Codecs write to standard error what they think of a file.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    seeds = [*drawn(), *(real(arguments.real) if arguments.real else [])]
    kept = [Seed(path.name.partition("-")[2].partition(".")[0], path.read_bytes()) for path in sorted(arguments.corpus.glob("*.bin"))]
    pool = [*seeds, *kept]
    signatures: set[str] = set()
    for seed in seeds:  # everything is loaded, and every good file was read once
        signatures.add(seed.kind + outcome(seed.data))
    sys.stdout.write("ready\n")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_MEMORY, used + MOST_MEMORY))
    for number in range(arguments.start, arguments.start + arguments.count):
        draw = random.Random(f"{arguments.seed}/{number}")
        seed = draw.choice(pool if draw.random() < 0.3 else seeds)
        data = mutated(seed, seeds, draw)
        arguments.current.write_bytes(data)
        begin = time.perf_counter()
        result = outcome(data, seed.name)
        seconds = time.perf_counter() - begin
        if seconds > SLOW_SECONDS:
            slow = arguments.corpus / "slow"
            slow.mkdir(exist_ok=True)
            (slow / f"{hashlib.sha256(data).hexdigest()[:16]}-{seed.kind}.bin").write_bytes(data)
        signature = seed.kind + re.sub(r"\d+", "", result)
        if signature not in signatures:
            signatures.add(signature)
            name = f"{hashlib.sha256(data).hexdigest()[:16]}-{seed.kind}.bin"
            (arguments.corpus / name).write_bytes(data)
            pool.append(Seed(seed.kind, data))
        sys.stdout.write(json.dumps([number, seed.kind, result, round(seconds, 3)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
