"""A Valkey cluster of three nodes, from the binary the embedded server uses."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis

from partywall_service.embedded import ValkeyServer

SLOTS = 16384


class ValkeyCluster:
    """Three nodes on loopback, each with a third of the slots and no replica.

    Attributes:
        nodes: the servers; a test may kill one and start it again.
        ports: their TCP ports, in the same order.
        url: `redis+cluster://` with every node.
    """

    def __init__(self, home: Path) -> None:
        free = free_ports(6)
        self.ports = free[:3]
        self.nodes = [
            ValkeyServer(home / f"valkey{port}", options=_options(port, bus))
            for port, bus in zip(self.ports, free[3:], strict=True)
        ]
        self._buses = free[3:]
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def start(self) -> None:
        """Start the nodes, join them, and return when each says that the cluster is whole."""
        for node in self.nodes:
            node.start()
        clients = [Redis(port=port, socket_timeout=5) for port in self.ports]
        try:
            for index, client in enumerate(clients):
                first, last = index * SLOTS // 3, (index + 1) * SLOTS // 3 - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
                # Epochs differ from the start, so that no election has to make them so.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            for port, bus in zip(self.ports[1:], self._buses[1:], strict=True):
                clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
            deadline = time.monotonic() + 30
            while not all(_whole(client) for client in clients):
                if time.monotonic() > deadline:
                    raise TimeoutError("the Valkey cluster did not come together in 30 s")
                threading.Event().wait(0.05)  # nothing tells us; we ask again
        finally:
            for client in clients:
                client.close()

    def stop(self) -> None:
        """Stop the nodes."""
        for node in self.nodes:
            node.ask_to_stop()
        for node in self.nodes:
            node.stop()


def _options(port: int, bus: int) -> list[str]:
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "cluster-enabled": "yes",
        "cluster-port": str(bus),
        "cluster-node-timeout": "2000",
        "cluster-allow-replica-migration": "no",
        "appendonly": "no",
    }
    return [part for name, value in options.items() for part in (f"--{name}", value)]


def _whole(client: "Redis[bytes]") -> bool:
    lines = client.execute_command("CLUSTER", "INFO").decode().split()
    return "cluster_state:ok" in lines and "cluster_known_nodes:3" in lines


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()


@contextmanager
def running_cluster(home: Path) -> Iterator[ValkeyCluster]:
    """A cluster for as long as the block lasts."""
    cluster = ValkeyCluster(home)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
