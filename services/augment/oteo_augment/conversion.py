"""Requests of the contract as the domain's own options."""

from __future__ import annotations

from oteo_augment.importing import ImportOptions, Limits, SplitOptions
from oteo_augment.importing.archives import ArchiveLimits
from oteo_augment.importing.options import FORMATS as READ_FORMATS
from oteo_augment.settings import AugmentSettings
from oteo_core.datasets.proto import FORMATS, TASKS, name_of
from oteo_core.errors import InvalidArgument
from oteo_core.images import ImageLimits
from oteo_protos.augment.v1 import dataset_pb2

UPLOADS = "uploads"
"""Folder of the artifact store for what callers sent."""


def import_options(request: dataset_pb2.ImportDatasetRequest, dataset_id: str) -> ImportOptions:
    """Bring a request to the importer's options.

    Raises
    ------
    InvalidArgument
        UNSUPPORTED_FORMAT for a format that this release does not read, BAD_GROUP_PATTERN.
    """
    format_name = name_of(FORMATS, request.format) if request.format else ""
    if format_name and format_name not in READ_FORMATS:
        more = ". DICOM files are the images of any of these: leave the format out" if format_name == "dicom" else ""
        raise InvalidArgument(
            f"the format {format_name} is not read by this release; {', '.join(READ_FORMATS)} are{more}",
            reason="UNSUPPORTED_FORMAT",
            field="format",
        )
    given = request.split
    shares = (given.train, given.validation, given.test)
    if shares == (0.0, 0.0, 0.0):
        shares = (SplitOptions.train, SplitOptions.validation, SplitOptions.test)
    split = SplitOptions(
        *shares,
        seed=given.seed,
        group_pattern=given.group_pattern,
        sequence_pattern=given.sequence_pattern,
        ignore_source_split=given.ignore_source_split,
        near_duplicate_distance=(
            given.near_duplicate_distance if given.HasField("near_duplicate_distance") else SplitOptions.near_duplicate_distance
        ),
    )
    _ = split.pattern, split.stack_pattern
    return ImportOptions(
        dataset_id=dataset_id,
        source_uri=request.source_uri,
        display_name=request.display_name,
        source_name=f"{UPLOADS}: sent by the caller" if f"/{UPLOADS}/" in request.source_uri else "",
        format=format_name,
        task=name_of(TASKS, request.task) if request.task else "",
        classes=tuple(request.classes),
        split=split,
        domain=request.domain,
        labels=dict(request.labels),
        leave_out_text=request.leave_out_burned_in_text,
        keep_names=request.keep_source_names,
    )


def import_limits(settings: AugmentSettings) -> Limits:
    """Give the limits that the settings set."""
    return Limits(
        ImageLimits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels),
        ArchiveLimits(max_bytes=settings.max_archive_bytes, max_members=settings.max_archive_members),
    )
