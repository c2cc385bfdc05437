"""Waiting for other workers."""

import socket
import threading

import pytest
from cluster import free_ports

from tf_lottery.training import rendezvous


def test_workers_meet():
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    threads = [threading.Thread(target=rendezvous.wait_for, args=(addresses, own, 20)) for own in addresses]
    for thread in threads:
        thread.start()
    # The first to have seen all closes its port; the others have to see what takes its place.
    servers = []
    for thread, own in zip(threads, addresses):
        thread.join(1)
        if not thread.is_alive():
            servers.append(socket.create_server(("127.0.0.1", int(own.rpartition(":")[2]))))
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    for server in servers:
        server.close()


def test_who_does_not_come_is_named():
    here, missing = (f"127.0.0.1:{port}" for port in free_ports(2))
    with pytest.raises(ConnectionError, match=f"No answer from the workers {missing} in 0.5 seconds"):
        rendezvous.wait_for([here, missing], here, 0.5)


def test_a_port_in_use_is_said():
    with socket.create_server(("", 0)) as server:
        own = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=f"The port of this worker, {own}, cannot be opened"):
            rendezvous.wait_for([own], own, 0.5)
