"""Settings of translate."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from oteo_core.settings import CoreSettings


class TranslateSettings(CoreSettings):
    """What translate reads from ``OTEO_*`` environment variables beside what every service reads."""

    stream_threads: int = Field(default=2, ge=1, le=256, description="Images of TranslateImages that are translated at a time.")
    translate_train_gpus: Literal["auto"] | Annotated[int, Field(ge=0, le=16)] = Field(
        default="auto", description="GPUs of one node that a training of a translator takes; auto: one, where a node has any."
    )

    encoder_uri: str = Field(
        default="",
        description="File or folder, a path or URI, of pretrained weights of VGG-16 or VGG-19 (vgg16*.pth, vgg19*.safetensors, …) that style transfer "
        "sees with; empty: with the frozen model's own encoder.",
    )
    inception_uri: str = Field(
        default="",
        description="File or folder, a path or URI, of torchvision's weights of Inception-v3 (inception_v3*.pth, …) that trainings of translators measure KID "
        "and FID with, beside the frozen model's own; empty: with the frozen model alone.",
    )

    @model_validator(mode="after")
    def _listen(self) -> TranslateSettings:
        self.__dict__["listen"] = self.listen or self.translate_address
        return self
