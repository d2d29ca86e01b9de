"""A correction, as recorded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CorrectionRecord:
    """What a reader said of one answer.

    Parameters
    ----------
    id
        Last part of ``deployments/{deployment}/corrections/{id}``; sorts by time.
    deployment, uid
        The deployment's id and uid: one that is made anew under the same id has none of these.
    model
        Id of the model that had answered.
    image
        Keyed hash of the image and frame.
    group
        Keyed hash of the group; empty where none was given.
    annotations
        What is right, and what was found in the image that was kept: a serialised ``Correction`` with ``annotations`` and ``findings`` alone.
    agreement
        0 to 1.
    sample
        ``datasets/{dataset}/samples/{sample}``; empty without the image.
    create_time
        Seconds since 1970.
    """

    id: str
    deployment: str
    uid: str
    model: str
    image: str
    group: str
    annotations: bytes
    agreement: float
    sample: str
    create_time: float
