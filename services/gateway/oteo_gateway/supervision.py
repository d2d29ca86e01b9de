"""The watch over deployments and readers' feedback put together: tables, loops beside, and the servicer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from oteo_core.artifacts import ArtifactStore
from oteo_core.datasets.named_images import ImageStore
from oteo_core.images import ImageLimits
from oteo_core.packages import ModelPackage
from oteo_core.packages.reference_sample import training_domain
from oteo_core.shift.home import Home
from oteo_gateway.deployment_facts import DeploymentFacts, tell_watches
from oteo_gateway.deployments.store import DeploymentStore
from oteo_gateway.feedback.keeper import CorrectionKeeper
from oteo_gateway.feedback.keys import FeedbackKey
from oteo_gateway.feedback.store import CorrectionStore
from oteo_gateway.feedback_service import FeedbackService
from oteo_gateway.prediction.admission import Admission
from oteo_gateway.settings import GatewaySettings
from oteo_gateway.watching.collector import Collector
from oteo_gateway.watching.store import WatchStore
from oteo_gateway.watching.watcher import Watcher, WatchSettings


class Supervision:
    """What looks after deployments in use. Make it, give `collector` to the predictor and `servicer` to the server, `start` it, `stop` it.

    Parameters
    ----------
    settings
        Of the gateway.
    deployments
        The table of deployments, and leases among gateways.
    artifacts
        The artifact store.
    read_package
        Gives a model's package by its id; raises NotFound.
    owner
        Who holds leases here.
    limits
        Largest images, as predictions have them.
    admission, decoders
        The places of predictions and their threads: pictures of corrections are decoded there.

    Attributes
    ----------
    collector
        Takes what predictions bring.
    facts
        Fills in what is known of a deployment.
    servicer
        ``FeedbackService``.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        deployments: DeploymentStore,
        artifacts: ArtifactStore,
        read_package: Callable[[str], ModelPackage],
        owner: str,
        limits: ImageLimits,
        admission: Admission,
        decoders: ThreadPoolExecutor,
    ) -> None:
        self._period = settings.watch_seconds
        self._watches = WatchStore(settings.database_url)
        self._corrections = CorrectionStore(settings.database_url)
        self.collector = Collector()

        def lease(name: str, seconds: float) -> bool:
            return deployments.lease(name, owner, seconds)

        def home_of(model: str) -> Home | None:
            return training_domain(artifacts, read_package(model))

        key = FeedbackKey(settings.deidentification_key)
        self._keeper = CorrectionKeeper(
            self._corrections,
            artifacts,
            ImageStore(artifacts, settings.max_image_bytes),
            limits,
            key,
            lease,
            settings.lease_seconds,
        )
        self.facts = DeploymentFacts(self._watches, self._keeper, read_package, settings.shift_false_alarms)
        self.servicer = FeedbackService(deployments, self._corrections, self._keeper, key, read_package, limits, admission, decoders)
        self._watcher = Watcher(
            self.collector,
            self._watches,
            deployments.list,
            home_of,
            lease,
            WatchSettings(
                settings.watch_seconds,
                settings.shift_look_images,
                settings.shift_look_seconds,
                settings.shift_false_alarms,
                settings.shift_least_effect,
                settings.lease_seconds,
            ),
            tell_watches,
        )
        self._list = deployments.list
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the loops, each in a thread of its own: a long gathering keeps no look waiting."""
        loops: Iterable[tuple[str, Callable[[], None]]] = (
            ("watch", lambda: self._watcher.run(self._stop)),
            ("corrections", lambda: self._keeper.run(self._stop, self._period, lambda: self.facts.tell_accuracies(self._list()))),
        )
        for name, loop in loops:
            thread = threading.Thread(target=loop, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop the loops; what was seen last is written. Blocks for a few seconds at most."""
        self._stop.set()
        for thread in self._threads:
            thread.join(5.0)
        self._watches.close()
        self._corrections.close()
