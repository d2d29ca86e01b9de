"""The Open Inference Protocol, forwarded to Triton as bytes.

Any Triton or KServe client works against the gateway. What changes the server itself (loading and unloading models, shared
memory, trace and log settings) does not pass: models are put into service by deployments, and the rest is Triton's operator's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from tritonclient.grpc import service_pb2

from oteo_core.errors import PermissionDenied, Unavailable
from oteo_gateway.forward_service import Backend, Proxy
from oteo_gateway.wire import string_field

SERVICE = "inference.GRPCInferenceService"
DESCRIPTOR = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]

_RETRY_SECONDS = 5.0
_REPOSITORY_CONTROL = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
_SHARED_MEMORY = frozenset(
    {"SystemSharedMemoryRegister", "SystemSharedMemoryUnregister", "CudaSharedMemoryRegister", "CudaSharedMemoryUnregister"}
)
# Reading and changing these settings is one call: with settings it changes them.
_SETTINGS = {"TraceSetting": service_pb2.TraceSettingRequest, "LogSettings": service_pb2.LogSettingsRequest}
_OF_A_MODEL = frozenset({"ModelInfer", "ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics"})


def guard(method: str, request: bytes | None) -> None:
    """Refuse what outside callers must not do to Triton.

    Parameters
    ----------
    method
        Full path of the call.
    request
        The request's bytes; None for streams.

    Raises
    ------
    PermissionDenied
        ``REPOSITORY_CONTROL``, ``SHARED_MEMORY`` or ``SERVER_SETTINGS``.
    """
    name = method.rpartition("/")[2]
    if name in _REPOSITORY_CONTROL:
        raise PermissionDenied(
            "Models are loaded and unloaded by deployments: call oteo.gateway.v1.DeploymentService instead.", reason="REPOSITORY_CONTROL"
        )
    if name in _SHARED_MEMORY:
        raise PermissionDenied(
            "Shared memory cannot be registered through the gateway; send tensors in raw_input_contents.", reason="SHARED_MEMORY"
        )
    kind = _SETTINGS.get(name)
    if kind is not None and kind.FromString(request or b"").settings:
        raise PermissionDenied(f"{name} may be read through the gateway, not changed.", reason="SERVER_SETTINGS")


class TritonRouter:
    """Sends each call to the next healthy replica, for a model's call to the next one that serves the model.

    Parameters
    ----------
    replicas
        All Triton replicas.
    healthy
        Gives the addresses of those that answer; empty where none is known to.
    serving
        Gives the addresses of the replicas that serve a Triton model; None where nothing is known of the model.
    failed
        Told the address of a replica that was away.
    nobody
        Called where a call finds no replica that answers.
    """

    def __init__(
        self,
        replicas: Sequence[Backend],
        *,
        healthy: Callable[[], Collection[str]],
        serving: Callable[[str], Collection[str] | None],
        failed: Callable[[str], None],
        nobody: Callable[[], None] = lambda: None,
    ) -> None:
        self._nobody = nobody
        self._replicas = tuple(replicas)
        self._healthy = healthy
        self._serving = serving
        self._failed = failed
        self._turn = 0

    def replace(self, replicas: Sequence[Backend]) -> None:
        """Send calls to these from now on."""
        self._replicas = tuple(replicas)

    def candidates(self, method: str, request: bytes | None) -> Sequence[Backend]:
        """Give a replica and, where there are more, one other to try if that one is away.

        Raises
        ------
        Unavailable
            ``NO_REPLICA``: there is none at all, as where the model server is scaled from zero.
        """
        if not self._replicas or not self._healthy():
            # Also where the last one has left and DNS still names it.
            self._nobody()
        if not self._replicas:
            raise Unavailable("No model server runs at the moment; one may be starting.", reason="NO_REPLICA", retry_after=_RETRY_SECONDS)
        model = ""
        if request is not None and method.rpartition("/")[2] in _OF_A_MODEL:
            model = string_field(request, 1)
        return self.order(model)[:2]

    def order(self, model: str) -> list[Backend]:
        """Give all replicas, the best to ask for a Triton model first; `model` may be empty."""
        replicas = self._replicas
        count = len(replicas)
        if count < 2:
            return list(replicas)
        self._turn = (self._turn + 1) % count
        turned = [replicas[(self._turn + step) % count] for step in range(count)]
        healthy = self._healthy()
        serving = self._serving(model) if model else None
        preferred = healthy if serving is None else serving
        # Stable: round robin among those that serve, the healthy ones next, the others last.
        return sorted(turned, key=lambda replica: (replica.address not in preferred, replica.address not in healthy))

    def failed(self, backend: Backend) -> None:
        """Pass on that a replica was away."""
        self._failed(backend.address)


def proxy(router: TritonRouter) -> Proxy:
    """Make the proxy of the protocol's service."""
    return Proxy(router, guard)
