"""A contract's Protocol becomes server routes, a client that coalesces, and an in-process binding for tests.

One duty a file: `wire` encodes, `coalescer` gathers, `client` calls, `breaker` and `retry` protect, `identity` signs,
`server` answers, `in_process` does all of it without a socket.
"""

from payflow.platform.rpc.client import RpcClients, client_for
from payflow.platform.rpc.in_process import in_process
from payflow.platform.rpc.server import RpcServer

__all__ = ["RpcClients", "RpcServer", "client_for", "in_process"]
