"""The Python SDK and the oteo command."""
