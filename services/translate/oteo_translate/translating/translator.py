"""A published translator, ready for images as they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from oteo_core.artifacts import ArtifactStore
from oteo_core.errors import DataLoss, FailedPrecondition, InvalidArgument
from oteo_core.graphs.modules import load_module
from oteo_core.images.depth import significant_bits, white
from oteo_core.packages.translators import TRANSLATION, TranslatorPackage, check_usable, read_translator, translator_prefix
from oteo_translate.methods import registry  # noqa: F401 (makes the kinds of translations known)
from oteo_translate.methods.base import Translation


@dataclass(frozen=True)
class Translator:
    """A translation and what it was published with.

    Parameters
    ----------
    package
        The manifest.
    translation
        In evaluation mode, on the processor.
    """

    package: TranslatorPackage
    translation: Translation

    def apply(self, pixels: NDArray[Any], bit_depth: int = 0) -> NDArray[Any]:
        """Translate a stored image.

        Parameters
        ----------
        pixels
            ``(H, W, C)`` uint8, uint16 or float32 of 0 to 1. Grey images go through a colour translator as colour and come
            back grey; an alpha channel stays as it is.
        bit_depth
            Bits that the file says 16-bit pixels fill; 0: they tell it themselves.

        Returns
        -------
        ndarray
            Same shape and type.

        Raises
        ------
        InvalidArgument
            ``CHANNELS_MISMATCH``, or ``NOT_FINITE`` where float pixels are not finite.
        """
        channels = pixels.shape[2]
        if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise InvalidArgument("the image holds values that are not finite", reason="NOT_FINITE")
        top = white(pixels.dtype.name, self.package.input.bit_depth or significant_bits(pixels, bit_depth))
        wanted = self.package.input.channels
        alpha = pixels[:, :, -1:] if channels in (2, 4) and channels != wanted else None
        look = pixels if alpha is None else np.ascontiguousarray(pixels[:, :, :-1])
        if look.shape[2] == wanted:
            found = self.translation.apply_to(look, top)
        elif look.shape[2] == 1 and wanted == 3:
            colour = self.translation.apply_to(np.repeat(look, 3, axis=2), top)
            found = np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY))[:, :, None]
        else:
            raise InvalidArgument(
                f"the image has {channels} channels, and {self.package.name} was made for {wanted}", reason="CHANNELS_MISMATCH"
            )
        return found if alpha is None else np.concatenate([found, alpha], axis=2)


def open_translator(store: ArtifactStore, name: str, *, allow_rejected: bool = False) -> Translator:
    """Read a translator.

    Parameters
    ----------
    store
        The artifact store.
    name
        ``translators/{id}`` or the id.
    allow_rejected
        True: also one that its gate has rejected.

    Raises
    ------
    NotFound
        ``TRANSLATOR_NOT_FOUND``.
    FailedPrecondition
        ``TRANSLATOR_REJECTED``; ``NOT_AN_IMAGE_TRANSLATOR`` where it changes the model and not the image.
    DataLoss
        ``BROKEN_PACKAGE``.
    """
    package = read_translator(store, name)
    check_usable(package, allow_rejected=allow_rejected)
    return _load(store, package)


def _load(store: ArtifactStore, package: TranslatorPackage) -> Translator:
    data = store.read_bytes(f"{translator_prefix(package.id)}/{TRANSLATION}")
    try:
        module = load_module(data)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise DataLoss(f"the translation of {package.name} cannot be read: {error}", reason="BROKEN_PACKAGE") from error
    if not isinstance(module, Translation):
        raise DataLoss(f"{package.name} holds a {module.kind}, which is no translation", reason="BROKEN_PACKAGE")
    return Translator(package, module)


@lru_cache(maxsize=2)
def cached_translator(store_uri: str, options: tuple[tuple[str, Any], ...], name: str, digest: str) -> Translator:
    """Give a translator, read once in a worker; `digest` is its package's, so that another under the same name is read anew."""
    store = ArtifactStore(store_uri, **dict(options))
    package = read_translator(store, name)
    if package.digest != digest:
        raise FailedPrecondition(f"{package.name} was replaced while it was used", reason="TRANSLATOR_CHANGED")
    return _load(store, package)
