"""The engine of batches: kornia and torch, on a graphics processor or any other device that torch knows.

It gives what the CPU engine gives within `oteo_core.augmentation.catalogue.agreement`, from the same draws. Importing this module costs
nothing; torch and kornia are loaded when an engine is made.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from oteo_core.augmentation.engines.base import GROUP, Drawn
from oteo_core.augmentation.engines.cpu import CpuEngine
from oteo_core.errors import FailedPrecondition

if TYPE_CHECKING:
    import torch

    from oteo_core.augmentation.engines.planes.work import Step

_WHITE = {"uint8": 255.0, "uint16": 65535.0}
_lock = threading.Lock()


class KorniaEngine:
    """Applies steps to batches of images of one size and type.

    Images are held as `upload` gives them: ``(C, H, W)`` float32 on the device, in the values of their type, whole where that is of
    whole numbers. A step that it does not do to an image goes to the CPU engine and comes back. A batch for which the device's memory is
    too small is done in halves.

    Parameters
    ----------
    device
        As torch calls it: "cpu", "cuda", "cuda:1".

    Raises
    ------
    FailedPrecondition
        ENGINE_NOT_INSTALLED without torch and kornia; NO_SUCH_DEVICE.
    """

    def __init__(self, device: str = "cpu") -> None:
        try:
            import torch

            self._steps = _steps()
        except ImportError as error:
            raise FailedPrecondition(
                f"the second engine needs {error.name}: install oteo-core[gpu-augmentation], or take the CPU engine",
                reason="ENGINE_NOT_INSTALLED",
            ) from error
        try:
            self._device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            told = str(error).splitlines()[0]
            raise FailedPrecondition(f"no device {device!r}: {told}", reason="NO_SUCH_DEVICE", field="device") from error
        self._cpu = CpuEngine()

    @property
    def names(self) -> frozenset[str]:
        """The transforms that it does."""
        return frozenset(self._steps)

    def apply(self, drawn: Drawn, pixels: NDArray[Any]) -> NDArray[Any]:
        """Apply to one image; `oteo_core.augmentation.engines.base.Engine` says how."""
        return self.download(self.apply_batch([drawn], [self.upload(pixels)], pixels.dtype)[0], pixels.dtype)

    def apply_batch(self, drawn: Sequence[Drawn], planes: Sequence[torch.Tensor], dtype: np.dtype[Any]) -> list[torch.Tensor]:
        """Apply what was drawn for each image of a batch.

        Parameters
        ----------
        drawn
            An image each, all of one transform.
        planes
            As `upload` gives them, all of one size; left as they are.
        dtype
            The type that all images had.

        Returns
        -------
        list of torch.Tensor
            As `planes`; heights and widths may differ.
        """
        import torch

        from oteo_core.augmentation.engines.planes.work import Unsuited

        step = self._steps.get(drawn[0].spec.name)
        full = False
        if step is not None:
            try:
                with torch.inference_mode(), _exactly(self._device):
                    return self._done(step, drawn, torch.stack(list(planes)), dtype)
            except Unsuited:
                pass
            except torch.OutOfMemoryError:
                full = True
        # Not while the error is handled, which holds what memory is full of.
        half = len(planes) // 2
        if full and half:
            return self.apply_batch(drawn[:half], planes[:half], dtype) + self.apply_batch(drawn[half:], planes[half:], dtype)
        return [self.upload(self._cpu.apply(one, self.download(plane, dtype))) for one, plane in zip(drawn, planes, strict=True)]

    def upload(self, pixels: NDArray[Any]) -> torch.Tensor:
        """Bring ``(H, W, C)`` of uint8, uint16 or float32 to the device, ``(C, H, W)`` float32."""
        import torch

        if pixels.dtype == np.uint16:
            # torch has next to no arithmetic for it; the same bits go over and are read as what they were.
            there = torch.from_numpy(np.array(pixels.view(np.int16))).to(self._device).to(torch.int32).bitwise_and(0xFFFF)
        else:
            there = torch.from_numpy(np.array(pixels)).to(self._device)
        return there.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)

    def download(self, plane: torch.Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Bring an image back, ``(H, W, C)`` of the type that it had, contiguous."""
        import torch

        pixels = plane.permute(1, 2, 0)
        if dtype.kind == "u":
            pixels = pixels.to(torch.uint8 if dtype == np.uint8 else torch.int32)
        return np.ascontiguousarray(pixels.contiguous().cpu().numpy().astype(dtype, copy=False))

    def edge(self, plane: torch.Tensor, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Give the outermost pixels ``(N, C)``, as `oteo_core.augmentation.engines.drawing.edge_of` of the image does."""
        import torch

        sides = torch.cat([plane[:, 0], plane[:, -1], plane[:, :, 0], plane[:, :, -1]], dim=1)
        return np.ascontiguousarray(sides.T.cpu().numpy()).astype(dtype)

    def _done(self, step: Step, drawn: Sequence[Drawn], planes: torch.Tensor, dtype: np.dtype[Any]) -> list[torch.Tensor]:
        import torch

        from oteo_core.augmentation.engines.planes.work import Work

        spec = drawn[0].spec
        # Images that are in the scale of the work already have 0 and 1, which changes nothing.
        scaled = any(one.scale.scaled for one in drawn)
        top = 1.0 if scaled else _WHITE.get(dtype.name, 1.0)
        low = torch.tensor([one.scale.low for one in drawn], device=planes.device).view(-1, 1, 1, 1)
        span = torch.tensor([one.scale.span for one in drawn], device=planes.device).view(-1, 1, 1, 1)
        work = (planes - low) / span if scaled else planes
        groups = []
        for number in range(len(drawn[0].parts)):
            parts = [one.parts[number] for one in drawn]
            told = Work(parts, [one.transform for one in drawn], top, dtype.kind == "u" and not scaled, drawn[0].border)
            some = work if len(drawn[0].parts) == 1 else work[:, number * GROUP : (number + 1) * GROUP]
            groups.append(list(step(some, told)))
        changed = groups[0] if len(groups) == 1 else [torch.cat(planes) for planes in zip(*groups, strict=True)]
        result = []
        for number, plane in enumerate(changed):
            # What only moves pixels may meet values that are no numbers, and none beyond those that were there.
            inside = plane.clamp(0, top) if spec.unit_range or spec.mixes else plane
            back = inside * span[number] + low[number] if scaled else inside
            result.append(back.round() if dtype.kind == "u" else back)
        return result


def _steps() -> Mapping[str, Step]:
    from oteo_core.augmentation.engines.planes import filters, geometry, noise, tone

    return {**geometry.STEPS, **tone.STEPS, **filters.STEPS, **noise.STEPS}


@contextmanager
def _exactly(device: torch.device) -> Iterator[None]:
    """Have convolutions on a graphics processor computed in all of float32's digits: TF32, the default there, has too few for 16 bits."""
    import torch

    if device.type != "cuda":
        yield
        return
    # The setting is the process's, so one batch must not end with what another began with.
    with _lock, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False, fp32_precision="ieee"):
        yield
