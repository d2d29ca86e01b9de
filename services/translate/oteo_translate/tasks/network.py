"""The frozen model as a network: its gradients, its features at every resolution, and its normalisations, all from ``network.pt2``.

The program is a list of operators (`oteo_core.graphs.programs`); it is walked node by node, so that any tensor can be replaced or read on the way. No
class that made the network is needed. Nothing here changes the program that it was given: what differs is a new `FrozenNetwork` beside it.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from oteo_core.errors import FailedPrecondition
from oteo_core.graphs.programs import dump_program, load_program
from oteo_core.images import InputPolicy

Tensors = dict[str, torch.Tensor]

FLOAT_TOLERANCE = 1e-3
"""Largest difference of an output between entering whole numbers and entering floats."""

_aten = torch.ops.aten
_NORMS: dict[Any, tuple[int, int]] = {
    _aten.batch_norm.default: (1, 2),
    _aten.group_norm.default: (2, 3),
    _aten.layer_norm.default: (2, 3),
    _aten.instance_norm.default: (1, 2),
}
"""Operators that normalise, and the places of weight and bias among their arguments."""

_CONVOLUTIONS = {_aten.conv2d.default, _aten.conv2d.padding, _aten.convolution.default}
_ACTIVATIONS = (
    "relu", "relu_", "silu", "silu_", "hardswish", "hardswish_", "gelu", "leaky_relu", "leaky_relu_", "elu", "elu_", "hardtanh", "hardtanh_",
    "relu6", "relu6_", "mish", "mish_", "celu", "selu", "prelu",
)  # fmt: skip
_CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size")


@dataclass(frozen=True, slots=True)
class Norm:
    """One batch normalisation, which may stand at several places of the program (a network that also looks at mirrored images).

    Parameters
    ----------
    name
        Of the module that it was.
    mean, variance
        Names of its statistics among the program's tensors.
    weight, bias
        Names of its affine parameters; empty where it has none.
    channels
        Their length.
    epsilon
        Added to the variance.
    """

    name: str
    mean: str
    variance: str
    weight: str
    bias: str
    channels: int
    epsilon: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """Of one batch normalisation: mean and variance (biased) of its input, each ``(c,)`` float32, and the images behind them."""

    mean: torch.Tensor
    variance: torch.Tensor
    count: int


class FrozenNetwork:
    """A served network whose inside can be reached.

    Parameters
    ----------
    program
        As `oteo_core.graphs.programs.load_program` gives it.
    outputs
        Names of what it gives.
    policy
        The model's input.

    Attributes
    ----------
    outputs, policy
        As given.
    """

    def __init__(self, program: torch.export.ExportedProgram, outputs: Sequence[str], policy: InputPolicy) -> None:
        self.outputs = tuple(outputs)
        self.policy = policy
        self._program = program
        self._module = program.module()
        for parameter in self._module.parameters():
            parameter.requires_grad_(False)
        self._norms = _find_norms(self._module)
        self._depths = _find_depths(self._module)

    @classmethod
    def from_bytes(cls, data: bytes, policy: InputPolicy) -> FrozenNetwork:
        """Read ``network.pt2``; `DataLoss` ``BROKEN_PACKAGE`` where it cannot be."""
        program, outputs = load_program(data)
        return cls(program, outputs, policy)

    def to_bytes(self) -> bytes:
        """Write ``network.pt2``."""
        return dump_program(self._program, self.outputs)

    def served(self) -> torch.nn.Module:
        """Give the network as it is served: from prepared images ``(N, H, W, C)`` of the policy's type to a tuple of outputs."""
        return ProgramModule(self._module)

    def run(self, planes: torch.Tensor, *, state: Mapping[str, torch.Tensor] | None = None, batch_norms: str = "kept") -> Tensors:
        """Answer, differentiably.

        Parameters
        ----------
        planes
            ``(N, C, H, W)`` float32 of 0 to 1, of the policy's size; may want gradients.
        state
            Tensors that stand for the program's own, by name (`Norm.weight` and so on); may want gradients.
        batch_norms
            ``"kept"``: by the statistics of the program; ``"batch"``: by those of these very images.

        Returns
        -------
        dict
            Tensors ``(N, ...)`` by the outputs' names.
        """
        reader = _Reader(self._module, state or {}, self._by_batch if batch_norms == "batch" else None)
        return dict(zip(self.outputs, _flat(reader.run(self._enter(planes))), strict=True))

    def depths(self) -> tuple[str, ...]:
        """Name the places at which features can be read, fine to coarse: at each resolution of the encoder the last activation; empty for what is not convolutional."""
        return self._depths

    def features(self, planes: torch.Tensor, depths: Sequence[str] | None = None) -> list[torch.Tensor]:
        """Read features, differentiably.

        Parameters
        ----------
        planes
            ``(N, C, H, W)`` float32 of 0 to 1.
        depths
            Of `depths`; None: all.

        Returns
        -------
        list
            ``(N, c, h, w)`` for each depth, fine to coarse; what lies beyond the last one is not computed.

        Raises
        ------
        FailedPrecondition
            ``NO_FEATURES``: a depth that the network has not, or it has none.
        """
        wanted = self._depths if depths is None else tuple(depths)
        if not wanted or not set(wanted) <= set(self._depths):
            raise FailedPrecondition(f"the network has no features at {', '.join(wanted) or 'any depth'}", reason="NO_FEATURES")
        reader = _Reader(self._module, {}, None, wanted)
        with contextlib.suppress(_Enough):
            reader.run(self._enter(planes))
        return [reader.seen[name] for name in wanted]

    def norms(self) -> tuple[str, ...]:
        """Name the batch normalisations, in the order of the program."""
        return tuple(self._norms)

    def norm(self, name: str) -> Norm:
        """Describe a batch normalisation."""
        return self._norms[name]

    def affine(self) -> Tensors:
        """Give copies of the affine parameters of all normalisations (batch, group, layer, instance), by their names."""
        names: dict[str, None] = {}
        for node in self._module.graph.nodes:
            for place in _NORMS.get(node.target, ()):
                if place < len(node.args) and isinstance(node.args[place], fx.Node) and node.args[place].op == "get_attr":
                    names[str(node.args[place].target)] = None
        return {name: self._tensor(name).detach().clone() for name in names}

    def kept_statistics(self) -> dict[str, Statistics]:
        """Give the statistics that the program has, by norm; their `Statistics.count` is 0, as nobody wrote it down."""
        return {
            name: Statistics(self._tensor(norm.mean).detach().clone(), self._tensor(norm.variance).detach().clone(), 0)
            for name, norm in self._norms.items()
        }

    @torch.no_grad()
    def measure(self, parts: Iterable[torch.Tensor], state: Mapping[str, torch.Tensor] | None = None) -> dict[str, Statistics]:
        """Measure the input of every batch normalisation while each part is normalised by its own statistics.

        Parameters
        ----------
        parts
            Planes ``(n, C, H, W)``; the fewer parts the better, as what is deep is normalised by its part's statistics alone.
        state
            As in `run`.

        Returns
        -------
        dict
            By norm: mean and variance over all images (law of total variance over parts and places).
        """
        totals: dict[str, list[torch.Tensor]] = {}
        weights: dict[str, float] = {}
        images = 0

        def seen(name: str, norm: Norm, args: tuple[Any, ...]) -> torch.Tensor:
            given = args[0]
            axes = [axis for axis in range(given.dim()) if axis != 1]
            count = given.numel() / given.shape[1]
            variance, mean = (part.double() for part in torch.var_mean(given, axes, correction=0))
            sums = count * torch.stack([mean, variance + mean * mean])
            if name in totals:
                totals[name].append(sums)
            else:
                totals[name] = [sums]
            weights[name] = weights.get(name, 0.0) + count
            return self._by_batch(name, norm, args)

        for planes in parts:
            images += len(planes)
            _Reader(self._module, state or {}, seen).run(self._enter(planes))
        found = {}
        for name, parts_seen in totals.items():
            first, second = torch.stack(parts_seen).sum(0) / weights[name]
            found[name] = Statistics(first.float(), (second - first * first).clamp_min(0.0).float(), images)
        return found

    def with_tensors(self, changed: Mapping[str, torch.Tensor]) -> FrozenNetwork:
        """Give a network of its own in which some tensors differ, by name; shapes stay."""
        program = copy.deepcopy(self._program)
        for name, value in changed.items():
            old = program.state_dict[name]
            if old.shape != value.shape:
                raise ValueError(f"{name} has shape {tuple(old.shape)}, not {tuple(value.shape)}")
            new = value.detach().to(old.dtype).clone()
            program.state_dict[name] = torch.nn.Parameter(new, requires_grad=False) if isinstance(old, torch.nn.Parameter) else new
        return FrozenNetwork(program, self.outputs, self.policy)

    def with_statistics(self, statistics: Mapping[str, Statistics]) -> FrozenNetwork:
        """Give a network of its own that normalises by other statistics, by norm."""
        changed: Tensors = {}
        for name, one in statistics.items():
            norm = self._norms[name]
            changed |= {norm.mean: one.mean, norm.variance: one.variance}
        return self.with_tensors(changed)

    @torch.no_grad()
    def error_of_floats(self) -> float:
        """Give the largest difference of a float output between whole numbers and floats of the same image entering; 0 where floats are what enters anyway.

        Gradients need floats, and a program that reckons with whole numbers (shifts of bits, say) answers otherwise to them.
        """
        if self.policy.dtype != "uint8":
            return 0.0
        shape = (2, self.policy.height, self.policy.width, self.policy.channels)
        image = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        whole = _flat(self._module(image))
        floats = self.run(image.permute(0, 3, 1, 2).float() / 255.0)
        gaps = [(one - other).abs().max() for one, other in zip(whole, floats.values(), strict=True) if one.is_floating_point()]
        return float(torch.stack(gaps).max())

    def _enter(self, planes: torch.Tensor) -> torch.Tensor:
        """Turn planes into what the program takes, as floats: its own conversion of floats to floats does nothing, and gradients pass."""
        image = planes.permute(0, 2, 3, 1)
        return image * 255.0 if self.policy.dtype == "uint8" else image

    def _tensor(self, name: str) -> torch.Tensor:
        found: torch.Tensor | None = self._program.state_dict.get(name)
        if found is None:
            found = self._program.constants[name]
        return found

    @staticmethod
    def _by_batch(name: str, norm: Norm, args: tuple[Any, ...]) -> torch.Tensor:
        return torch.batch_norm(args[0], args[1], args[2], None, None, True, 0.0, norm.epsilon, False)


class ProgramModule(torch.nn.Module):
    """A program as a module that may be put into evaluation mode, where it is anyway: exporters and runners ask for it."""

    def __init__(self, program: fx.GraphModule) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> ProgramModule:
        """Do nothing: a program refuses to be told its mode."""
        return self

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Give the outputs for prepared images ``(N, H, W, C)``."""
        return _flat(_Reader(self.program, {}, None).run(image))


class _Enough(Exception):
    """All that was wanted is seen; no error."""


class _Reader(fx.Interpreter):
    """Walks the program, with tensors and batch normalisations of one's own."""

    def __init__(
        self,
        module: fx.GraphModule,
        state: Mapping[str, torch.Tensor],
        normalise: Callable[[str, Norm, tuple[Any, ...]], torch.Tensor] | None,
        wanted: Sequence[str] = (),
    ) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.seen: Tensors = {}
        self._state = state
        self._normalise = normalise
        self._wanted = set(wanted)

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function" and n.target is _aten.batch_norm.default and self._normalise is not None:
            args = self.map_nodes_to_values(n.args, n)
            norm = _norm_of(n)
            result: Any = self._normalise(norm.name, norm, tuple(args))  # type: ignore[arg-type]
        else:
            result = super().run_node(n)
        if n.name in self._wanted:
            self.seen[n.name] = result
            self._wanted.discard(n.name)
            if not self._wanted:
                raise _Enough
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = self._state.get(str(target))
        return found if found is not None else super().get_attr(target, args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        # What a program checks of its input (its type, its size) is not true of floats in the place of whole numbers.
        return None if str(target) == "_guards_fn" else super().call_module(target, args, kwargs)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        name = getattr(getattr(target, "overloadpacket", None), "__name__", "")
        return None if name in _CHECKS else super().call_function(target, args, kwargs)


def _flat(found: Any) -> tuple[torch.Tensor, ...]:
    return tuple(found) if isinstance(found, (tuple, list)) else (found,)


def _attribute(node: Any) -> str:
    return str(node.target) if isinstance(node, fx.Node) and node.op == "get_attr" else ""


def _norm_of(node: fx.Node) -> Norm:
    _, weight, bias, mean, variance, *rest = node.args
    name = _attribute(mean).removesuffix(".running_mean") or node.name
    channels = int(node.meta["val"].shape[1])
    return Norm(name, _attribute(mean), _attribute(variance), _attribute(weight), _attribute(bias), channels, float(rest[2]))  # type: ignore[arg-type]


def _find_norms(module: fx.GraphModule) -> dict[str, Norm]:
    found: dict[str, Norm] = {}
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target is _aten.batch_norm.default and _attribute(node.args[3]):
            norm = _norm_of(node)
            found.setdefault(norm.name, norm)
    return found


def _find_depths(module: fx.GraphModule) -> tuple[str, ...]:
    """Find for each resolution of the first descent the last activation before the next coarser one.

    Pictures of one pixel are left aside: they are weights of channels, not features. What is finer again belongs to a decoder, or to a second look
    at the mirrored image.
    """
    found: dict[tuple[int, int], tuple[bool, str]] = {}
    begun, coarsest = False, None
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        begun = begun or node.target in _CONVOLUTIONS
        value = node.meta.get("val")
        if not begun or not isinstance(value, torch.Tensor) or value.dim() != 4 or not value.is_floating_point():
            continue
        size = int(value.shape[2]), int(value.shape[3])
        if size[0] * size[1] <= 1:
            continue
        if coarsest is not None and size[0] * size[1] > coarsest[0] * coarsest[1]:
            break
        coarsest = size
        active = getattr(getattr(node.target, "overloadpacket", None), "__name__", "") in _ACTIVATIONS
        if active or not found.get(size, (False, ""))[0]:
            found[size] = (active, node.name)
    return tuple(name for _, name in found.values())
