"""The audit's page: one HTML file that loads nothing."""
