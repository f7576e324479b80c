"""Commands on a cluster, as Ray jobs: packed (``package``), sent and followed (``client``)."""
