"""The whole stack, started once for the tests that need it."""
