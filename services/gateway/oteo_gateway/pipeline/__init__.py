"""The pipeline: a plain function over the public API, safe to kill and to run again."""
