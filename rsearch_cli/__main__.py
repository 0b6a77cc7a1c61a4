"""`python -m rsearch_cli` runs `rsearch`."""

from rsearch_cli.app import main

main()
