"""Giving models out in other forms.

`catalogue` is light; `forms` and `network_file` stand on PyTorch.
"""
