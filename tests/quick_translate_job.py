"""Translate's own jobs for tests: states are kept at every look, and ONNX Runtime answers where a Triton would. Run as ``python -m quick_translate_job``."""

from __future__ import annotations

from training_tools import RuntimeParity

from oteo_core.jobs import run_job
from oteo_translate import train_job
from oteo_translate.job import HANDLERS
from oteo_translate.methods.unpaired import trainer
from oteo_translate.settings import TranslateSettings

if __name__ == "__main__":
    trainer.KEEP_SECONDS, trainer._KEEPING_SHARE = 0.0, 1e9
    train_job.TritonParityClient = RuntimeParity
    run_job(TranslateSettings, HANDLERS)
