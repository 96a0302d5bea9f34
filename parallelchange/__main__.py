"""`python -m parallelchange` is the command."""

from parallelchange.cli import main

main()
