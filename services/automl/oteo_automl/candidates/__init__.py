"""Candidates: what may be trained, each behind a name in the registry."""
