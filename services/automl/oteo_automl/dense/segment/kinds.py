"""All modules of segmentation that can be written down: importing this makes them known to `oteo_automl.candidates.modules.build`."""

from oteo_automl.dense.segment.masks import MaskNetwork, ServedMasks
from oteo_automl.dense.segment.mixing import MeanMaps
from oteo_automl.dense.segment.networks import SegmentationNetwork
from oteo_automl.dense.segment.serving import ServedSemantic, ServedWatershed

KINDS = (SegmentationNetwork, MaskNetwork, MeanMaps, ServedSemantic, ServedWatershed, ServedMasks)
