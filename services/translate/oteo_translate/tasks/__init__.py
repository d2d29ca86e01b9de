"""The frozen task model: its answers, its features, and what its answers are worth."""
