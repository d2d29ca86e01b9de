"""Pydantic models of the chart's values; ``tools/chart_values.py`` puts them together."""
