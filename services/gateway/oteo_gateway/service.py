"""The gateway put together: what it forwards, what it answers itself, and the loops beside."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import structlog
from google.longrunning import operations_pb2, operations_pb2_grpc
from google.protobuf.descriptor import ServiceDescriptor

from oteo_core.artifacts import ArtifactStore, open_store
from oteo_core.auditlog import AuditLog
from oteo_core.datasets.named_images import ImageStore
from oteo_core.images import ImageLimits
from oteo_core.jobs import JobRunner
from oteo_core.operations import OperationManager, OperationStore
from oteo_core.packages import ModelPackage, read_model
from oteo_core.packages.translators import TranslatorPackage, list_translators, read_translator
from oteo_core.security import bearer
from oteo_gateway import inference_service, metrics, open_inference_service
from oteo_gateway.access.making import make_door
from oteo_gateway.access.quota_store import QuotaStore
from oteo_gateway.auditing.hook import AuditHook
from oteo_gateway.auditing.methods import Methods
from oteo_gateway.auditing.operation_ends import OperationEnds
from oteo_gateway.channels import service_channel, sync_triton_channel, triton_channel
from oteo_gateway.deployment_service import DeploymentService
from oteo_gateway.deployments.adaptations import Adaptations
from oteo_gateway.deployments.directory import Directory
from oteo_gateway.deployments.planning import Planner
from oteo_gateway.deployments.reconciler import Reconciler
from oteo_gateway.deployments.records import Deployment
from oteo_gateway.deployments.replica import ReplicaKeeper
from oteo_gateway.deployments.repository import ModelRepository
from oteo_gateway.deployments.shadows import ComparisonStore
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.forward_service import Backend, ForwardingHandler, OneBackend, Proxy
from oteo_gateway.identity_service import IdentityService
from oteo_gateway.inference_service import InferenceService
from oteo_gateway.operations_service import OperationsService
from oteo_gateway.pipeline_service import PipelineService
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.prediction.crowd import PredictionCrowd
from oteo_gateway.prediction.frames import Frames
from oteo_gateway.prediction.inputs import Inputs
from oteo_gateway.prediction.predictor import Predictor
from oteo_gateway.prediction.shadowing import Shadows
from oteo_gateway.replicas import Replica, Replicas
from oteo_gateway.settings import GatewaySettings
from oteo_gateway.supervision import Supervision
from oteo_gateway.triton_control import TritonControl
from oteo_gateway.triton_health import TritonHealth
from oteo_gateway.triton_inference import TritonCalls
from oteo_gateway.triton_statistics import TritonStatistics
from oteo_gateway.waiting_service import WaitingOperations
from oteo_protos.augment.v1 import augment_pb2, dataset_pb2
from oteo_protos.automl.v1 import automl_pb2
from oteo_protos.gateway.v1 import (
    deployment_pb2,
    deployment_pb2_grpc,
    feedback_pb2,
    feedback_pb2_grpc,
    identity_pb2,
    identity_pb2_grpc,
    inference_pb2,
    pipeline_pb2,
    pipeline_pb2_grpc,
)
from oteo_protos.translate.v1 import translate_pb2

log = structlog.get_logger(__name__)

_MOST_DECODERS = 4
_LINGER_PERIODS = 3
_TRUSTED_PERIODS = 10


def _services(file: Any, *names: str) -> list[ServiceDescriptor]:
    return [file.DESCRIPTOR.services_by_name[name] for name in names]


# What is forwarded, by the service behind.
FORWARDED: dict[str, list[ServiceDescriptor]] = {
    "augment": [*_services(dataset_pb2, "DatasetService"), *_services(augment_pb2, "AugmentService")],
    "automl": _services(automl_pb2, "AutoMLService"),
    "translate": _services(translate_pb2, "TranslateService"),
}


def _limits(settings: GatewaySettings) -> ImageLimits:
    return ImageLimits(
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        max_frames=settings.predict_max_frames,
        max_nesting=settings.predict_max_nesting,
        # What is packed as a whole is unpacked in memory.
        max_unpacked=settings.max_image_bytes,
    )


def _all_services() -> list[ServiceDescriptor]:
    """Give the services whose calls come in here, forwarded or not."""
    own = (
        (operations_pb2, "Operations"),
        (deployment_pb2, "DeploymentService"),
        (pipeline_pb2, "PipelineService"),
        (inference_pb2, "InferenceService"),
        (feedback_pb2, "FeedbackService"),
        (identity_pb2, "IdentityService"),
    )
    found = [descriptor for descriptors in FORWARDED.values() for descriptor in descriptors]
    found.extend(descriptor for file, name in own for descriptor in _services(file, name))
    return [*found, open_inference_service.DESCRIPTOR]


class Gateway:
    """Everything of one gateway process. Make it, `register` it at a server, `start` it, and `stop` it at the end.

    Parameters
    ----------
    settings
        Where everything is.
    runner
        What starts the pipelines' jobs.
    """

    def __init__(self, settings: GatewaySettings, runner: JobRunner) -> None:
        self._settings = settings
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._artifacts = open_store(settings)
        self._store = DeploymentStore(settings.database_url)
        self.operations = OperationManager(settings, "gateway", OperationStore(settings.database_url), self._artifacts, runner)
        self._quotas = QuotaStore(settings.database_url)
        self.door = make_door(settings, self._quotas, self.operations.store, settings.processes)
        """Who is answered: the server must be built with it."""
        self._waiting = WaitingOperations(self.operations, self._store)
        self.operations.on_cancel = self._waiting.withdraw
        self._repository = repository = ModelRepository(ArtifactStore(settings.model_repository), self._artifacts)
        trusted = _TRUSTED_PERIODS * settings.reconcile_seconds
        self._adaptations = Adaptations(
            lambda name: read_translator(self._artifacts, name),
            lambda: list_translators(self._artifacts),
            self.read_package,
            period=trusted,
        )
        self._comparisons = ComparisonStore(self._store.engine)
        self.reconciler = Reconciler(
            self._store,
            repository,
            Planner(repository, self.read_package, self._adaptations, period=trusted),
            (),
            self._waiting,
            owner=self._owner,
            period=settings.reconcile_seconds,
            lease_seconds=settings.lease_seconds,
            give_up_seconds=settings.deploy_timeout_seconds,
        )
        self._directory = Directory(self._deployments, self.read_package, self.read_translator, period=settings.reconcile_seconds)
        self._decoders = ThreadPoolExecutor(
            settings.decode_threads or min(_MOST_DECODERS, os.cpu_count() or 1), thread_name_prefix="decode"
        )
        self._admission = Admission(
            settings.predict_concurrency, settings.predict_queue, queue_bytes=settings.predict_queue_bytes, changed=metrics.waiting
        )
        self._observer = metrics.PrometheusObserver()
        self.crowd = PredictionCrowd(self._admission, self._observer)
        """Who is turned away before anything is read: the server must be built with it."""
        self._supervision = Supervision(
            settings, self._store, self._artifacts, self.read_package, self._owner, _limits(settings), self._admission, self._decoders
        )
        self._stop = threading.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._threads: list[threading.Thread] = []
        self._channels: list[grpc.aio.Channel] = []
        self._replicas: Replicas | None = None
        self._health: TritonHealth | None = None
        self._shadows: Shadows | None = None
        self.audit: AuditLog | None = None
        self.hook: AuditHook | None = None
        self._ends: OperationEnds | None = None
        if settings.audit_log:
            self.audit = AuditLog(settings)
            self.hook = AuditHook(self.audit, settings, Methods(_all_services()))
            self._ends = OperationEnds(
                settings.database_url,
                self.audit,
                lambda: self._store.lease("audit-operations", self._owner, settings.lease_seconds),
                self.read_package,
                period=settings.reconcile_seconds,
            )

    def read_package(self, model_id: str) -> ModelPackage:
        """Give a model's package; raises NotFound."""
        return read_model(self._artifacts, model_id)

    def read_translator(self, name: str) -> TranslatorPackage:
        """Give a translator; raises NotFound."""
        return read_translator(self._artifacts, name)

    def _deployments(self) -> list[Deployment]:
        found = self._store.list()
        for deployment in found:
            metrics.expect(deployment.id)
        metrics.deployments_waiting(sum(bool(deployment.operation) for deployment in found))
        return found

    def _replica(self, address: str) -> Replica:
        settings = self._settings
        control = TritonControl(
            address,
            probe_timeout=settings.probe_timeout_seconds,
            load_timeout=settings.load_timeout_seconds,
            channel=sync_triton_channel(address, settings),
        )
        keeper = ReplicaKeeper(
            control,
            self._repository,
            probe_seconds=settings.probe_seconds,
            linger_seconds=_LINGER_PERIODS * settings.reconcile_seconds,
        )
        return Replica(address, Backend("triton", address, triton_channel(address, settings)), control, keeper)

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Add all handlers to a server, inside its event loop, and give the services' full names."""
        settings = self._settings
        token = tuple(bearer(settings.shared_token()))
        addresses = {"augment": settings.augment_address, "automl": settings.automl_address, "translate": settings.translate_address}
        backends = {name: Backend(name, address, service_channel(address, settings), token) for name, address in addresses.items()}
        self._channels = [backend.channel for backend in backends.values()]

        def changed(found: Sequence[Replica]) -> None:
            router.replace([replica.backend for replica in found])
            health.replace([replica.backend for replica in found])
            self.reconciler.replace_keepers([replica.keeper for replica in found])

        self._replicas = Replicas(settings.triton_urls, self._replica, changed, period=settings.discover_seconds)
        replicas = [replica.backend for replica in self._replicas.current()]
        self.reconciler.replace_keepers([replica.keeper for replica in self._replicas.current()])
        health = self._health = TritonHealth(replicas, period=settings.health_seconds, changed=self.reconciler.wake)
        router = open_inference_service.TritonRouter(
            replicas,
            healthy=health.healthy,
            serving=self._directory.serving,
            failed=health.failed,
            nobody=metrics.no_replica,
        )
        watcher = metrics.PrometheusShadowObserver()
        shadows = self._shadows = Shadows(
            self._comparisons.add, watcher, places=settings.shadow_queue, period=settings.shadow_write_seconds
        )
        watcher.watch(lambda: shadows.waiting)
        inputs = Inputs(ImageStore(self._artifacts, settings.max_image_bytes), _limits(settings))
        predictor = Predictor(
            self._directory.find,
            TritonCalls(router, self.reconciler.wake),
            inputs,
            self._admission,
            self._decoders,
            default_timeout=settings.predict_seconds,
            observer=self._observer,
            shadows=shadows,
            adapt_below=settings.adapt_below,
            watch=self._supervision.collector,
        )
        shadows.start(predictor.ask)
        noted = self.hook.item if self.hook is not None else None
        frames = Frames(self._directory.find, inputs, self._admission, self._decoders, self._observer)
        inference = InferenceService(predictor, frames, window=settings.predict_stream_window, noted=noted)
        deployments = DeploymentService(
            self._store,
            self.operations,
            self._waiting,
            self.read_package,
            self._adaptations,
            self._comparisons,
            self.reconciler.wake,
            self._supervision.facts.fill,
        )
        operations_pb2_grpc.add_OperationsServicer_to_server(OperationsService(self.operations, backends), server)
        deployment_pb2_grpc.add_DeploymentServiceServicer_to_server(deployments, server)
        feedback_pb2_grpc.add_FeedbackServiceServicer_to_server(self._supervision.servicer, server)
        pipeline_pb2_grpc.add_PipelineServiceServicer_to_server(PipelineService(self.operations, self.read_package), server)
        identity_pb2_grpc.add_IdentityServiceServicer_to_server(IdentityService(self.door), server)
        forwarded = {
            descriptor.full_name: (descriptor, Proxy(OneBackend(backends[name])))
            for name, descriptors in FORWARDED.items()
            for descriptor in descriptors
        }
        forwarded[open_inference_service.SERVICE] = (open_inference_service.DESCRIPTOR, open_inference_service.proxy(router))
        forwarding = ForwardingHandler(forwarded)
        server.add_generic_rpc_handlers((inference_service.handler(inference), forwarding))
        return (
            operations_pb2.DESCRIPTOR.services_by_name["Operations"].full_name,
            deployment_pb2.DESCRIPTOR.services_by_name["DeploymentService"].full_name,
            feedback_pb2.DESCRIPTOR.services_by_name["FeedbackService"].full_name,
            pipeline_pb2.DESCRIPTOR.services_by_name["PipelineService"].full_name,
            identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].full_name,
            inference_service.SERVICE,
            *forwarding.names,
        )

    def _backends(self) -> list[Backend]:
        return [] if self._replicas is None else [replica.backend for replica in self._replicas.current()]

    async def start(self) -> None:
        """Start the loops beside: the audit log first, then health, deployments, operations."""
        if self.audit is not None and self.hook is not None and self._ends is not None:
            await asyncio.to_thread(self.audit.start)
            self._tasks.append(asyncio.create_task(self._ends.run(self.hook.tell_counted), name="audit-operations"))
        await asyncio.to_thread(self._waiting.resume)
        await self._directory.refresh()
        if self._replicas is not None:
            await self._replicas.refresh()
            self._tasks.append(asyncio.create_task(self._replicas.run(), name="triton-replicas"))
        self.operations.start_reconciler()
        thread = threading.Thread(target=self.reconciler.run, args=(self._stop,), name="deployments", daemon=True)
        thread.start()
        self._threads.append(thread)
        self._supervision.start()
        self._tasks.append(asyncio.create_task(self._directory.run(), name="directory"))
        statistics = TritonStatistics(
            self._backends, self._directory.triton_models, lambda: self.reconciler.leads, period=self._settings.statistics_seconds
        )
        self._tasks.append(asyncio.create_task(statistics.run(), name="triton-statistics"))
        self._tasks.append(asyncio.create_task(self.door.quotas.run(), name="quotas"))
        if self._health is not None:
            self._tasks.append(asyncio.create_task(self._health.run(), name="triton-health"))

    async def stop(self) -> None:
        """Stop the loops and close everything."""
        self._stop.set()
        self.reconciler.wake()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.door.close()
        self._quotas.close()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, 5.0)
        await asyncio.to_thread(self._supervision.stop)
        await asyncio.to_thread(self.operations.close)
        self.reconciler.close()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        if self._shadows is not None:
            await self._shadows.stop()
        for channel in self._channels:
            await channel.close()
        if self._replicas is not None:
            await self._replicas.close()
        if self.audit is not None and self._ends is not None:
            self._ends.close()
            await asyncio.to_thread(self.audit.close)
        self._store.close()
