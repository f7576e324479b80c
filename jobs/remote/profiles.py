"""Profiles of clusters: what is the same for every command on one, in a TOML file.

::

    [cluster.lab]
    address = "http://head:8265"
    python = "/opt/replisome/bin/python"
    runs = "/shared/runs"
    tracking = "http://mlflow:5000"
    environment = { NCCL_SOCKET_IFNAME = "eth0" }
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from data_shards.documents import Document, parse, read_toml
from data_shards.errors import InputError

FILE_VARIABLE = "REPLISOME_CLUSTERS"
_DEFAULT = Path("~/.config/replisome/clusters.toml")


class Profile(Document):
    """One cluster.

    Attributes:
        address: of Ray's dashboard.
        python: interpreter on the cluster that has replisome.
        runs: the folder of all runs, on storage that all nodes see.
        tracking: MLflow's address.
        storage: of the sweeps' studies, without a password: that stays in the environment.
        image: for people; the container image that the nodes run.
        environment: variables of every command.
    """

    address: str
    python: str = "python"
    runs: str | None = None
    tracking: str | None = None
    storage: str | None = None
    image: str | None = None
    resources: dict[str, float] = Field({}, description="for people: what the cluster has")
    environment: dict[str, str] = Field({}, description="variables of every command")

    def variables(self) -> dict[str, str]:
        """Return the environment of a command on this cluster."""
        named = {"MLFLOW_TRACKING_URI": self.tracking, "REPLISOME_STORAGE": self.storage}
        return {key: value for key, value in named.items() if value} | self.environment


class Profiles(Document):
    """All of a file."""

    cluster: dict[str, Profile]


def read_profile(name: str, file: Path | None) -> Profile:
    """Read a cluster's profile.

    Args:
        name: of the cluster.
        file: by default what ``REPLISOME_CLUSTERS`` names, or
            ``~/.config/replisome/clusters.toml``.

    Raises:
        InputError: there is no such file or cluster, or it is not as it should be.
    """
    path = file or Path(os.environ.get(FILE_VARIABLE) or _DEFAULT).expanduser()
    document = read_toml(path, remedy="write one with [cluster.NAME] tables, or say --address")
    profiles = parse(Profiles, document, path)
    if name not in profiles.cluster:
        raise InputError(
            f"no cluster is called {name!r}",
            path=path,
            remedy=f"there are: {', '.join(profiles.cluster) or 'none'}",
        )
    return profiles.cluster[name]


def address_of(address: str | None, profile: Profile | None) -> str:
    """Return the dashboard's address: as said, of the profile, or of Ray's own variable.

    Raises:
        InputError: nothing says.
    """
    found = address or (profile.address if profile else None)
    found = found or os.environ.get("RAY_API_SERVER_ADDRESS")
    if found is None:
        raise InputError(
            "no cluster is named",
            remedy="say --address http://HOST:8265 or --cluster NAME, or set "
            "RAY_API_SERVER_ADDRESS",
        )
    return found if "://" in found else f"http://{found}"
