"""Deployments: what should be served, and making every model server replica match it."""
