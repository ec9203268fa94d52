"""A fleet on two Ray nodes, one of which is killed: run in a network namespace with loopback alone.

    ray_fleet.py FOLDER

FOLDER has `plan.toml`, whose kinds are "nuc" and "orin" and whose [ray] is to have this cluster's
address. What came of it goes to `first.json`, `second.json` and `facts.json`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from effnet_edge.fleet.commands import OWN_COMMAND

SECONDS = 120


def fleet(folder: Path, result: str) -> subprocess.Popen[bytes]:
    with (folder / result).open("wb") as output, (folder / "errors.txt").open("ab") as errors:
        return subprocess.Popen(
            [*OWN_COMMAND[:-1], "plan.toml", "--json"], cwd=folder, stdout=output, stderr=errors
        )


def add_node(cluster: Cluster, kinds: dict[str, int]) -> Any:
    return cluster.add_node(num_cpus=2, resources=kinds, object_store_memory=100 << 20)


def at_work(raylet: int) -> list[str]:
    """What the workers of the node do: Ray gives their processes the names of their tasks."""
    titles = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            title = (process / "cmdline").read_bytes().partition(b"\0")[0].decode()
            if parent == raylet and title.startswith("ray::") and title != "ray::IDLE":
                titles.append(title)
    return titles


def nodes_alive(*, once_below: int) -> int:
    """How many nodes live, as soon as they are fewer: the head asks each one every few seconds."""
    limit = time.monotonic() + SECONDS
    while True:
        alive = [node["Alive"] for node in ray.nodes()].count(True)
        if alive < once_below or time.monotonic() > limit:
            return alive
        time.sleep(0.2)


def main(folder: Path) -> None:
    both = {"nuc": 1, "orin": 1}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100 << 20},
    )
    add_node(cluster, both)
    killed = add_node(cluster, both)
    plan = folder / "plan.toml"
    plan.write_text(plan.read_text().replace("ADDRESS", cluster.address))
    facts: dict[str, Any] = {}
    try:
        process = fleet(folder, "first.json")
        jobs = folder / "plan-fleet/jobs"
        limit = time.monotonic() + SECONDS
        (raylet,) = killed.all_processes["raylet"]
        node = raylet.process.pid
        while not (jobs.is_dir() and any(jobs.glob("*.json")) and at_work(node)):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        facts["at_work_when_killed"] = at_work(node)
        os.kill(node, signal.SIGKILL)
        facts["done_when_killed"] = len(list(jobs.glob("*.json")))
        facts["first_code"] = process.wait(SECONDS)
        kept = {path.name: path.stat().st_mtime_ns for path in jobs.iterdir()}
        facts["second_code"] = fleet(folder, "second.json").wait(SECONDS)
        facts["kept"] = kept == {path.name: path.stat().st_mtime_ns for path in jobs.iterdir()}
        ray.init(address=cluster.address, log_to_driver=False)
        facts["alive"] = nodes_alive(once_below=3)
        ray.shutdown()
    finally:
        cluster.shutdown()
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
