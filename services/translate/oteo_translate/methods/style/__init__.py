"""Style transfer: statistics or patches of a network's features are brought to home's."""

from oteo_translate.methods.style import adain, analogy, gatys, strotss

__all__ = ["adain", "analogy", "gatys", "strotss"]
