"""Oteo's Python SDK.

>>> import oteo
>>> client = oteo.Client()  # the stack on this machine, or Client("host:port", token="…")
>>> result = client.run_pipeline("/your/images", budget=600, name="lesions").wait()
>>> client.predict("lesions", "image.png").classification.scores[0].class_name
"""

from oteo.aio import AsyncClient
from oteo.client import Client
from oteo.connection import Endpoint, find_endpoint
from oteo.errors import OperationFailed, OteoApiError
from oteo.operations import OperationHandle
from oteo.retrying import RetryPolicy
from oteo.streaming import Streamed

__all__ = [
    "AsyncClient",
    "Client",
    "Endpoint",
    "OperationFailed",
    "OperationHandle",
    "OteoApiError",
    "RetryPolicy",
    "Streamed",
    "find_endpoint",
]
__version__ = "0.1.0"
