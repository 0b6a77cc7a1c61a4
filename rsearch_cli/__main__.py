"""`python -m rsearch_cli` is `rsearch`. On failure: as `app` says."""

from rsearch_cli.app import main

main()
