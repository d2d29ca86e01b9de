"""Methods that change colours and contrast by a formula; nothing is trained."""

from oteo_translate.methods.colour import clahe, fourier, gamma, histogram, macenko, moments, reinhard, vahadane

__all__ = ["clahe", "fourier", "gamma", "histogram", "macenko", "moments", "reinhard", "vahadane"]
