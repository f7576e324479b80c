"""A Ray cluster with a dashboard and a token, until its stdin is closed; for the tests of jobs."""

from __future__ import annotations

import json
import socket
import sys


def main() -> None:
    """Start it, write its addresses as a JSON line, wait, and end it."""
    from ray.cluster_utils import Cluster

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": True, "dashboard_port": port},
    )
    try:
        answer = {"dashboard": f"http://{cluster.head_node.webui_url}", "gcs": cluster.address}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
