"""Settings of automl."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from oteo_core.settings import CoreSettings


class AutoMLSettings(CoreSettings):
    """What automl reads from ``OTEO_*`` environment variables, beside what every service reads."""

    pretrained_uri: str = Field(
        default="", description='Folder or URI of pretrained weights, a file per network name, or "hub:"; empty: train from scratch.'
    )
    allow_hub: bool = Field(
        default=False,
        description='Whether "hub:" may be named as the place of pretrained weights: the Hugging Face hub, or its local cache.',
    )
    mlflow_experiment: str = Field(default="oteo", description="Name of the experiment in MLflow that trials are kept in.")
    mlflow_timeout: float = Field(
        default=10.0, gt=0, description="Time after which a call to MLflow is given up and kept for later, seconds."
    )
    tensorrt: Literal["", "FP32", "FP16"] = Field(
        default="",
        description="Precision in which Triton's GPUs run models by TensorRT; empty: not by TensorRT. A model that answers otherwise with it is "
        "published without it.",
    )
    largest_input: int = Field(default=0, ge=0, description="Largest input side of models, pixels; 0: 128 without a GPU, 224 with one.")

    @model_validator(mode="after")
    def _listen(self) -> AutoMLSettings:
        self.__dict__["listen"] = self.listen or self.automl_address
        return self

    @model_validator(mode="after")
    def _hub(self) -> AutoMLSettings:
        if self.pretrained_uri.partition("#")[0] == "hub:" and not self.allow_hub:
            raise ValueError("pretrained_uri is the hub, and allow_hub is off: set OTEO_ALLOW_HUB=true, or name a folder of weights")
        return self
