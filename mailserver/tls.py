"""The server's TLS context: how it is made, and how a renewed certificate takes its place.

One context a process, made by the parent before it forks, so that a session begun with one
worker resumes with another. TLS 1.2 and newer (RFC 8997). It is changed in place: sessions
that begin after the change see the new certificate, others are not touched.
"""

import ssl
from pathlib import Path

from mailserver import log


class ServerContext(ssl.SSLContext):
    """A context that knows which files its certificate came from, and how they looked then."""

    stamp: tuple[tuple[int, int, int], ...] = ()


def server_context(certificate: Path, key: Path) -> ServerContext:
    """The context for our listeners, with the chain and key (PEM) loaded.

    Raises OSError (ssl.SSLError is one) when a file can't be used.
    """
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.stamp = _stamp(certificate, key)
    context.load_cert_chain(certificate, key)
    return context


def reload_if_changed(context: ssl.SSLContext, certificate: Path, key: Path) -> bool:
    """Whether a changed certificate was taken over into `context`; costs two stat calls otherwise.

    A broken or half-written one is logged once and the old one stays; it is tried again
    when a file changes again.
    """
    assert isinstance(context, ServerContext)
    stamp = _stamp(certificate, key)
    if stamp == context.stamp:
        return False
    context.stamp = stamp
    try:
        # A trial first: a key that doesn't fit would leave the live context with a certificate and no key.
        server_context(certificate, key)
        context.load_cert_chain(certificate, key)
    except OSError as error:
        log.warning("the new certificate can't be used, the old one stays", because=error, path=certificate)
        return False
    log.started("the new certificate", path=certificate)
    return True


def _stamp(*files: Path) -> tuple[tuple[int, int, int], ...]:
    """How the files look from outside; empty when one can't be seen."""
    try:
        stats = [path.stat() for path in files]
    except OSError:
        return ()
    return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
