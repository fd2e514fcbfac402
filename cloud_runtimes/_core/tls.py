"""TLS as all clients here speak it."""

from __future__ import annotations

import ssl


def client_context(authorities: str | None = None, folder: str | None = None) -> ssl.SSLContext:
    """Return a context that checks certificates and names, from paths of authorities; by default those of the system.

    A name counts only among the certificate's alternative names: RFC 9110, section 4.3.4, ended that of its subject.

    Raises:
        OSError: a file cannot be read.
    """
    context = ssl.create_default_context(cafile=authorities, capath=folder)
    context.hostname_checks_common_name = False
    return context
