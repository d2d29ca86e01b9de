"""What can be tried: one candidate a module, behind a registry."""
