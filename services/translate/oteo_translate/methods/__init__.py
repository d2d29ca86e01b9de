"""Ways to bring images of a shifted domain to the look of home: one module each, behind a registry."""
