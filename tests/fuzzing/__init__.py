"""Mutated files through the decoders, each in a child process, so that one that brings a codec down is noticed and kept."""
