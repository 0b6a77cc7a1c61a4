"""Uses of private parts of other libraries: one module per library.

Each names the version it was checked on, and has a test in `tests/unit/compat` that fails once the
library no longer needs it.
"""
