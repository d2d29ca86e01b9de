"""Transforms that albumentations lacks, or has for 8 bits alone: one idea a module, made by name through the catalogue.

Importing a module of this package imports albumentations, which costs seconds; the catalogue does so when it builds one.
"""
