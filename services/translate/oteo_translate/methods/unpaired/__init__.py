"""Translation learnt from images that have no counterparts: importing this package makes its methods known.

Each method is a recipe: a generator, an objective and weights, for the one trainer.
"""

from oteo_translate.methods.unpaired.cut import CUT
from oteo_translate.methods.unpaired.cyclegan import CycleGAN
from oteo_translate.methods.unpaired.dualgan import DualGAN
from oteo_translate.methods.unpaired.fastcut import FastCUT
from oteo_translate.methods.unpaired.ganilla import Ganilla
from oteo_translate.methods.unpaired.sincut import SinCUT

__all__ = ["CUT", "CycleGAN", "DualGAN", "FastCUT", "Ganilla", "SinCUT"]
