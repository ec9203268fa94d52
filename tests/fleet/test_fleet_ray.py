"""A fleet on Ray itself, which listens on the network: in a namespace that has loopback alone."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import pytest
from fleet_bundles import write_fleet, write_plan, wrong_model
from tiny_bundles import write_bundle

SCRIPT = Path(__file__).with_name("ray_fleet.py")
# With processes of its own, too, all of which end with the first.
ALONE = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
if os.geteuid() != 0:
    ALONE.append("--map-root-user")
SECONDS = 540


def in_a_namespace() -> bool:
    """Whether this system gives one to this user."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return False
    command = [*ALONE, "ip", "link", "set", "lo", "up"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None or not in_a_namespace(),
    reason="needs Ray, unshare and ip, and a system that lets them make a network namespace",
)


@pytest.mark.sample
def test_every_job_is_answered_once_although_a_node_is_killed(tmp_path: Path) -> None:
    sound = ("one", "two", "three")
    write_fleet(tmp_path, sound)
    write_bundle(tmp_path / "wrong", "onnxruntime", wrong_model())
    more = 'kinds = ["nuc", "orin"]\n[ray]\naddress = "ADDRESS"'
    write_plan(tmp_path, (*sound, "wrong"), more)
    with_loopback = ("sh", "-c", 'ip link set lo up && exec "$@"', "--")
    ended = subprocess.run(
        [*ALONE, *with_loopback, sys.executable, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
    )
    errors = tmp_path / "errors.txt"
    told = errors.read_text() if errors.exists() else ""
    assert ended.returncode == 0, ended.stderr + told
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert facts["done_when_killed"] < 8
    assert facts["at_work_when_killed"], "no job was lost with the node"
    assert facts["alive"] == 2  # the head, and the node that is left
    assert (facts["first_code"], facts["second_code"], facts["kept"]) == (1, 1, True), told
    for name in ("first.json", "second.json"):
        document = json.loads((tmp_path / name).read_text())
        answered = Counter((job["bundle"], job["kind"]) for job in document["jobs"])
        assert answered == dict.fromkeys(product((*sound, "wrong"), ("nuc", "orin")), 1)
        for job in document["jobs"]:
            assert job["state"] == ("failed" if job["bundle"] == "wrong" else "passed"), told
            assert job["result"]["node"]["name"]
