"""``python -m oteo.cli``."""

from oteo.cli import main

main()
