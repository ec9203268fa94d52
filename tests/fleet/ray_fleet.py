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
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from effnet_edge.fleet.commands import OWN_COMMAND

SECONDS = 240


def fleet(folder: Path, result: str) -> subprocess.Popen[bytes]:
    with (folder / result).open("wb") as output, (folder / "errors.txt").open("ab") as errors:
        return subprocess.Popen(
            [*OWN_COMMAND[:-1], "plan.toml", "--json"], cwd=folder, stdout=output, stderr=errors
        )


def add_node(cluster: Cluster, kinds: dict[str, int]) -> Any:
    return cluster.add_node(num_cpus=2, resources=kinds, object_store_memory=100 << 20)


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
        while not (jobs.is_dir() and any(jobs.glob("*.json"))):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.05)
        (raylet,) = killed.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)
        facts["done_when_killed"] = len(list(jobs.glob("*.json")))
        facts["first_code"] = process.wait(SECONDS)
        kept = {path.name: path.stat().st_mtime_ns for path in jobs.iterdir()}
        facts["second_code"] = fleet(folder, "second.json").wait(SECONDS)
        facts["kept"] = kept == {path.name: path.stat().st_mtime_ns for path in jobs.iterdir()}
        ray.init(address=cluster.address, log_to_driver=False)
        facts["alive"] = [node["Alive"] for node in ray.nodes()].count(True)
        ray.shutdown()
    finally:
        cluster.shutdown()
        (folder / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
