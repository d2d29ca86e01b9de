"""One way to serve gRPC, for every service."""

from oteo_core.server.builder import Server, TlsAddress, build_server, serve
from oteo_core.server.channels import channel, sync_channel

__all__ = ["Server", "TlsAddress", "build_server", "channel", "serve", "sync_channel"]
