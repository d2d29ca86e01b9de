"""Predictions as files that other tools read: CSV, COCO results, Pascal VOC; and what several detectors found, made one."""
