"""Callers of the site: bare ones, who see each status, and users of the SDK, who must not."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from gateway_support import CLASSES, picture
from pair_site import METADATA, TOKEN
from waiting import patient

import oteo
from oteo_protos.augment.v1 import augment_pb2, augment_pb2_grpc
from oteo_protos.gateway.v1 import inference_pb2, inference_pb2_grpc
from oteo_protos.type.v1 import image_pb2

PICTURES = {colour: picture(colour) for colour in CLASSES}


async def predict(channel: grpc.aio.Channel, number: int) -> bool:
    """Ask for one image whose class is known, as a client without retries does."""
    colour = CLASSES[number % 3]
    request = inference_pb2.PredictRequest(deployment="deployments/colours", image=image_pb2.ImageSource(content=PICTURES[colour]))
    answer = await inference_pb2_grpc.InferenceServiceStub(channel).Predict(request, metadata=METADATA, timeout=60)
    return bool(answer.classification.decision == colour)


class User:
    """A caller who uses the SDK as it is, in a thread: every call must have its answer."""

    def __init__(self, address: str, ask: Callable[[oteo.Client], None]) -> None:
        self._client = oteo.Client(address, TOKEN)
        self._ask = ask
        self._pool = ThreadPoolExecutor(1)
        self._stop = threading.Event()
        self.answered = 0
        self._done = self._pool.submit(self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._ask(self._client)
            self.answered += 1
            time.sleep(0.05)

    def stop(self) -> None:
        """Call no more."""
        self._stop.set()

    def end(self) -> int:
        """Stop, and give the number of answers; raises what a call ended with."""
        self.stop()
        self._done.result(patient(60))
        self._client.close()
        self._pool.shutdown()
        return self.answered


def answered(client: oteo.Client) -> None:
    """Ask for one image."""
    assert client.predict("colours", PICTURES["red"]).classification.decision == "red"


def listed(client: oteo.Client) -> None:
    """List models through automl, and the gateway's own deployments."""
    list(client.models.list(limit=3))
    assert "deployments/colours" in {found.name for found in client.deployments.list(limit=10)}


async def ask_augment(channel: grpc.aio.Channel, _number: int) -> bool:
    """Ask the service behind for its catalogue, as a client without retries does."""
    request = augment_pb2.ListTransformsRequest()
    answer = await augment_pb2_grpc.AugmentServiceStub(channel).ListTransforms(request, metadata=METADATA, timeout=60)
    return len(answer.transforms) > 10


class Streaming:
    """Somebody who sends images through one stream of the SDK's, on and on; every image must come back answered, in order."""

    def __init__(self, address: str) -> None:
        self._client = oteo.Client(address, TOKEN)
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._run)
        self.answered = 0

    def _images(self) -> Iterator[bytes]:
        for colour in itertools.cycle(CLASSES):
            if self._stop.wait(0.05):
                return
            yield PICTURES[colour]

    def _run(self) -> None:
        for expected, found in zip(itertools.cycle(CLASSES), self._client.predict_many("colours", self._images())):
            assert found.error is None, found.error
            assert found.response is not None
            assert found.response.classification.decision == expected
            self.answered += 1

    def stop(self) -> None:
        """Call no more."""
        self._stop.set()

    def end(self) -> int:
        """Stop, and give the number of answers."""
        self.stop()
        self._done.result(patient(60))
        self._client.close()
        self._pool.shutdown()
        return self.answered


class Augmenting:
    """A program of somebody's own that has images augmented through a stream: what is not answered when it breaks goes into the next one."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._run)
        self.answered: list[str] = []
        self.ends: Counter[str] = Counter()

    def _run(self) -> None:
        with grpc.insecure_channel(self._address) as channel:
            stub = augment_pb2_grpc.AugmentServiceStub(channel)
            while not self._stop.is_set():
                try:
                    for answer in stub.AugmentImages(self._requests(), metadata=METADATA):
                        assert not answer.HasField("error"), answer.error
                        assert answer.key == f"i{len(self.answered)}", "answers come in their order, none is left out"
                        self.answered.append(answer.key)
                    self.ends["OK"] += 1
                except grpc.RpcError as error:
                    self.ends[error.code().name] += 1
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    time.sleep(0.5)

    def _requests(self) -> Iterator[augment_pb2.AugmentImagesRequest]:
        yield augment_pb2.AugmentImagesRequest(settings=augment_pb2.AugmentImagesRequest.Settings(seed=1))
        for number in itertools.count(len(self.answered)):
            if self._stop.wait(0.1):
                return
            item = augment_pb2.AugmentImagesRequest.Item(key=f"i{number}", image=image_pb2.ImageSource(content=PICTURES["green"]))
            yield augment_pb2.AugmentImagesRequest(item=item)

    def stop(self) -> None:
        """Call no more."""
        self._stop.set()

    def end(self) -> int:
        """Stop, and give the number of images that came back."""
        self.stop()
        self._done.result(patient(60))
        self._pool.shutdown()
        return len(self.answered)
