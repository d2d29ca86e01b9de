"""``InferenceService``: predictions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import grpc
import structlog
from google.protobuf import duration_pb2
from google.protobuf.message import DecodeError

from oteo_core.context import current
from oteo_core.datasets.proto import finding_to_proto
from oteo_core.errors import InvalidArgument, OteoError, from_exception
from oteo_core.server.streams import answered_in_order
from oteo_core.server.validation import validate
from oteo_gateway.prediction.answer import ClassAnswer
from oteo_gateway.prediction.frames import Frames, Room
from oteo_gateway.prediction.predictor import Prediction, Predictor, Query
from oteo_gateway.prediction.regions import MaskForm, ObjectAnswer, RegionAnswer
from oteo_protos.gateway.v1 import inference_pb2
from oteo_protos.type.v1 import image_pb2, report_pb2

Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger(__name__)

_PNG = "image/png"
Noted = Callable[[bytes, inference_pb2.PredictStreamResponse], Awaitable[inference_pb2.PredictStreamResponse]]
_MASKS: dict[int, MaskForm] = {
    inference_pb2.MASK_ENCODING_UNSPECIFIED: "runs",
    inference_pb2.MASK_ENCODING_RUN_LENGTHS: "runs",
    inference_pb2.MASK_ENCODING_POLYGONS: "polygons",
    inference_pb2.MASK_ENCODING_NONE: "none",
}


class InferenceService:
    """Predictions over gRPC.

    Parameters
    ----------
    predictor
        Answers.
    frames
        Decodes all frames of a file, where a stream asks for them.
    window
        Images of one stream that are worked on at a time.
    noted
        Given each answer of a stream, with its request, before the caller gets it; gives the answer to give. None: not asked.
    """

    def __init__(self, predictor: Predictor, frames: Frames, *, window: int, noted: Noted | None = None) -> None:
        self._predictor = predictor
        self._frames = frames
        self._window = window
        self._noted = noted

    async def Predict(self, request: inference_pb2.PredictRequest, context: Context) -> inference_pb2.PredictResponse:
        """Answer for one image."""
        query = decode(request)
        if query.all_frames:
            raise InvalidArgument(
                "All frames of a file are answered in PredictStream; here name one by frame.", reason="ALL_FRAMES", field="all_frames"
            )
        return encode(await self._predictor.predict(query, current().remaining))

    async def PredictStream(
        self, request_iterator: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[inference_pb2.PredictStreamResponse]:
        """Answer for images as they come, in order; a window of them is worked on at a time.

        Requests come as bytes, so that one that breaks the contract's rules is answered with its error and does not end the stream.
        """
        async for response in answered_in_order(self._asked(request_iterator), self._answer_noted, self._window):
            yield response

    async def _asked(self, requests: AsyncIterator[bytes]) -> AsyncIterator[_Asked]:
        """Read requests; make of one for all frames a query for each, decoded, no faster than they are answered."""
        room = Room()
        async for data in requests:
            item = inference_pb2.PredictStreamRequest()
            try:
                query = _stream_query(item, data)
            except OteoError as error:
                yield _Asked(data, item.key, error)
                continue
            if not query.all_frames:
                yield _Asked(data, item.key, query)
                continue
            # The encoded file stays with the frames, not with what is asked of each.
            item.request.ClearField("image")
            bare = item.SerializeToString()
            async for decoded in self._frames.each(query, room):
                if isinstance(decoded.outcome, OteoError):
                    yield _Asked(bare, item.key, decoded.outcome)
                else:
                    yield _Asked(bare, item.key, replace(query, content=b"", picture=decoded.outcome), decoded.release)

    async def _answer_noted(self, asked: _Asked) -> Sequence[inference_pb2.PredictStreamResponse]:
        responses = await self._answer(asked)
        return responses if self._noted is None else [await self._noted(asked.data, response) for response in responses]

    async def _answer(self, asked: _Asked) -> Sequence[inference_pb2.PredictStreamResponse]:
        try:
            if isinstance(asked.question, OteoError):
                raise asked.question  # noqa: TRY301 (answered as any other error is)
            prediction = await self._predictor.predict(asked.question, current().remaining)
        except OteoError as error:
            return [inference_pb2.PredictStreamResponse(key=asked.key, error=error.to_status())]
        except Exception as error:
            log.exception("prediction_failed")
            return [inference_pb2.PredictStreamResponse(key=asked.key, error=from_exception(error).to_status())]
        finally:
            asked.release()
        return [inference_pb2.PredictStreamResponse(key=asked.key, response=encode(prediction))]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question of a stream, or what is wrong with it, with its request's bytes; `release` is called when it was answered."""

    data: bytes
    key: str
    question: Query | OteoError
    release: Callable[[], None] = lambda: None


def _stream_query(item: inference_pb2.PredictStreamRequest, data: bytes) -> Query:
    """Read a stream's request into `item` (its key is wanted even where the rest is wrong), and give what is asked."""
    try:
        item.ParseFromString(data)
    except DecodeError as error:
        raise InvalidArgument(f"This is not a PredictStreamRequest: {error}") from error
    validate(item)
    query = decode(item.request)
    if query.all_frames and query.frame is not None:
        raise InvalidArgument("Either one frame is asked for or all of them.", reason="ALL_FRAMES", field="all_frames")
    return query


SERVICE: str = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"].full_name


def handler(service: InferenceService) -> grpc.GenericRpcHandler:
    """Make the handler of the service; PredictStream is given bytes."""
    methods = {
        "Predict": grpc.unary_unary_rpc_method_handler(
            service.Predict,
            request_deserializer=inference_pb2.PredictRequest.FromString,
            response_serializer=inference_pb2.PredictResponse.SerializeToString,
        ),
        "PredictStream": grpc.stream_stream_rpc_method_handler(
            service.PredictStream, response_serializer=inference_pb2.PredictStreamResponse.SerializeToString
        ),
    }
    return grpc.method_handlers_generic_handler(SERVICE, methods)


def decode(request: inference_pb2.PredictRequest) -> Query:
    """Read a request."""
    return Query(
        deployment_id=request.deployment.removeprefix("deployments/"),
        content=request.image.content,
        sample=request.image.sample,
        uri=request.image.uri,
        top_k=request.top_k,
        operating_point=request.operating_point,
        score_threshold=request.score_threshold if request.HasField("score_threshold") else None,
        explain=request.explain,
        frame=request.frame if request.HasField("frame") else None,
        all_frames=request.all_frames,
        tiling=request.tiling == inference_pb2.TILING_ON,
        masks=_MASKS[request.mask_encoding],
        draw=request.draw,
        alias=request.alias,
        adapt=request.adapt,
    )


def encode(prediction: Prediction) -> inference_pb2.PredictResponse:
    """Write an answer."""
    answer, times = prediction.answer, prediction.times
    response = inference_pb2.PredictResponse(
        deployment=prediction.deployment,
        model=prediction.model,
        model_version=prediction.version,
        alias=prediction.alias,
        translator=prediction.translator,
        suggested_translator=prediction.suggested,
        timing=report_pb2.Timing(
            total=_duration(times.total), decode=_duration(times.decode), queue=_duration(times.queue), inference=_duration(times.inference)
        ),
        image=image_pb2.ImageInfo(
            width=prediction.header.width,
            height=prediction.header.height,
            channels=prediction.header.channels,
            bit_depth=prediction.header.bit_depth,
            sha256=prediction.sha256,
        ),
        findings=[finding_to_proto(finding) for finding in prediction.findings],
        frame=prediction.frame,
        frame_count=prediction.frame_count,
    )
    if isinstance(answer, ClassAnswer):
        response.classification.CopyFrom(_classes(answer))
    elif isinstance(answer, ObjectAnswer):
        response.detection.CopyFrom(_objects(answer))
    else:
        response.segmentation.CopyFrom(_regions(answer))
        if answer.total > len(answer.regions):
            response.findings.add(
                severity=report_pb2.Finding.SEVERITY_INFO,
                code="MANY_REGIONS",
                message=f"The {len(answer.regions)} largest of {answer.total} regions are listed; the label image has all.",
            )
    if prediction.shift is not None:
        response.shift.distance, response.shift.p_value = prediction.shift
    if prediction.explanation:
        response.explanation.content, response.explanation.media_type = prediction.explanation, _PNG
    if prediction.drawing:
        response.drawing.content, response.drawing.media_type = prediction.drawing, _PNG
    return response


def _classes(answer: ClassAnswer) -> inference_pb2.ClassificationResult:
    result = inference_pb2.ClassificationResult(
        scores=[inference_pb2.ClassificationResult.Score(class_name=name, probability=value) for name, value in answer.scores],
        prediction_set=answer.prediction_set,
        coverage=answer.coverage,
        decision=answer.decision,
        refer=answer.refer,
        decisions=answer.decisions,
    )
    if answer.point is not None:
        result.operating_point, result.threshold = f"{answer.point.class_name}/{answer.point.criterion}", answer.point.threshold
    return result


def _objects(answer: ObjectAnswer) -> inference_pb2.DetectionResult:
    result = inference_pb2.DetectionResult()
    for name, score, (left, top, right, bottom) in answer.objects:
        item = result.objects.add(class_name=name, score=score)
        item.box.x, item.box.y, item.box.width, item.box.height = left, top, right - left, bottom - top
        result.counts[name] += 1
    return result


def _regions(answer: RegionAnswer) -> inference_pb2.SegmentationResult:
    result = inference_pb2.SegmentationResult()
    for region in answer.regions:
        item = result.regions.add(
            class_name=region.class_name,
            area=region.area,
            diameter=region.diameter,
            area_mm2=region.area_mm2,
            diameter_mm=region.diameter_mm,
        )
        item.annotation.class_name = region.class_name
        if region.runs:
            item.annotation.mask.width, item.annotation.mask.height = answer.width, answer.height
            item.annotation.mask.counts.extend(region.runs)
        elif region.outlines:
            for outline in region.outlines:
                item.annotation.polygons.polygons.add(points=outline)
        else:
            left, top, right, bottom = region.box
            item.annotation.box.x, item.annotation.box.y, item.annotation.box.width, item.annotation.box.height = (
                left,
                top,
                right - left,
                bottom - top,
            )
        if region.score is not None:
            item.annotation.score = region.score
    result.label_image.content, result.label_image.media_type = answer.label_image, _PNG
    return result


def _duration(seconds: float) -> duration_pb2.Duration:
    whole = int(seconds)
    return duration_pb2.Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))
