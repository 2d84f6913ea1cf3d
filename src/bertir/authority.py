"""What to do about a server whose certificate nobody here vouches for: as a rule, it is of a company's own authority.

Each program has a list of its own of whom it trusts, and a variable that names another one (docs/how-to/corporate-ca.md).
"""

from __future__ import annotations

# requests, by which bertir downloads, and pip.
FOR_DOWNLOADS = "Is it of your company's own authority? Name a file of trusted certificates with it: REQUESTS_CA_BUNDLE=FILE"
FOR_GIT = (
    "Is it of your company's own authority? Name a file of trusted certificates with it: GIT_SSL_CAINFO=FILE"
)
