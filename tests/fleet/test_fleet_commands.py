"""Nodes that are commands: this machine, and a stand-in for ssh that runs its shell here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from fleet_bundles import write_fleet, write_plan, wrong_model
from tiny_bundles import write_bundle

from effnet_edge.fleet import commands
from effnet_edge.fleet.commands import OWN_COMMAND, CommandNodes, command_of, run_command
from effnet_edge.fleet.orders import Job
from effnet_edge.fleet.package import Package
from effnet_edge.fleet.plan import CommandNode
from effnet_edge.fleet.running import Lost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

EFFNET_EDGE = OWN_COMMAND[:-2]
PROMPT_SECONDS = 60
# What sshd does with a command, and a greeting of a shell that nobody asked for.
SSH = """#!/bin/sh
while [ "$1" != -- ]; do shift; done
echo "$2" >> "$SSH_LOG"
case "$2" in unreachable) echo "ssh: connect to host: No route to host" >&2; exit 255;; esac
echo "Welcome!"
exec sh -c "$3"
"""


@pytest.fixture
def with_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the stand-in on the PATH; gives the file that lists the hosts that were called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    program = folder / "effnet-edge"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{EFFNET_EDGE[-1]}" "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("SSH_LOG", str(tmp_path / "hosts"))
    return tmp_path / "hosts"


def fleet(plan: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EFFNET_EDGE, "fleet", plan.name, *options],
        cwd=plan.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=PROMPT_SECONDS * 5,
    )


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + PROMPT_SECONDS
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_ssh_never_takes_a_host_or_a_program_for_an_option_or_a_command() -> None:
    command = command_of(CommandNode("edge@orin", "orin", "edge@orin", "/opt/my tools/run; id"))
    assert command[0] == "ssh"
    assert command[-3:] == ("--", "edge@orin", "'/opt/my tools/run; id' fleet --node")
    assert "BatchMode=yes" in command


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("exit 3", "node: the job ended with exit code 3"),
        ("echo first; echo 'no such engine' >&2; exit 1", "exit code 1: no such engine"),
        ("kill -9 $$", "exit code -9"),
        ("sleep 60", "longer than the plan's time-limit"),
    ],
)
def test_a_command_that_fails_is_a_loss_with_its_reason(script: str, told: str) -> None:
    outcome = run_command(["sh", "-c", script], b"order", 1).result("node")
    assert isinstance(outcome, Lost)
    assert told in outcome.reason


def test_a_program_that_is_not_there_is_a_loss() -> None:
    outcome = run_command(["/no/such/program"], b"", 5).result("node")
    assert outcome == Lost(
        "node: the job ended with exit code 127: /no/such/program: No such file or directory"
    )


def test_a_large_order_and_a_large_result_pass() -> None:
    content = os.urandom(3 << 20)
    assert run_command(["cat"], content, 60).result("node") == content


def test_a_node_that_cannot_be_reached_is_not_asked_again(with_ssh: Path) -> None:
    nodes = [CommandNode(name, "orin", name, "effnet-edge") for name in ("unreachable", "orin-2")]
    cluster = CommandNodes(nodes, 60)
    job = Job("key", "check", "b0", "orin", {}, dict)
    assert cluster.nodes("orin") == 2
    cluster.start(job, Package({"key": "key"}))
    ended = None
    while ended is None:
        ended = cluster.wait(1)
    assert ended == (
        "key",
        Lost(
            "unreachable: the job ended with exit code 255: ssh: connect to host: No route to host",
            unreached=True,
        ),
    )
    assert cluster.nodes("orin") == 1
    assert with_ssh.read_text() == "unreachable\n"


def test_a_node_that_had_begun_is_lost_by_a_try_of_the_job(
    with_ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "_UNREACHED_SECONDS", 0)
    cluster = CommandNodes([CommandNode("orin", "orin", "unreachable", "effnet-edge")], 60)
    cluster.start(Job("key", "check", "b0", "orin", {}, dict), Package({"key": "key"}))
    ended = None
    while ended is None:
        ended = cluster.wait(1)
    assert isinstance(ended[1], Lost)
    assert not ended[1].unreached
    assert cluster.nodes("orin") == 0
    assert with_ssh.read_text() == "unreachable\n"


def test_nodes_that_are_not_there_leave_the_job_to_the_one_that_is(
    tmp_path: Path, with_ssh: Path
) -> None:
    hosts = ("unreachable", "unreachable", "unreachable", "orin-2")
    nodes = "".join(f'[[node]]\nkind = "orin"\nssh = "{host}"\n' for host in hosts)
    plan = write_fleet(tmp_path, ("one",), "[jobs]\nretries = 0\n")
    plan.write_text(plan.read_text() + nodes)
    ended = fleet(plan)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert with_ssh.read_text().split() == list(hosts)


def test_why_no_node_is_left_is_in_the_row_and_in_the_document(
    tmp_path: Path, with_ssh: Path
) -> None:
    plan = write_fleet(tmp_path, ("one", "two"))
    lines = '[[node]]\nkind = "orin"\nssh = "{}"\nprogram = "{}"\n'
    plan.write_text(
        plan.read_text() + lines.format("unreachable", "x") + lines.format("orin-2", "no-program")
    )
    ended = fleet(plan, "--json")
    assert ended.returncode == 1
    for job in json.loads(ended.stdout)["jobs"]:
        assert "no node of kind orin is left" in job["error"]
        assert "No route to host" in job["error"]
        assert "no-program" in job["error"]
    ended = fleet(plan)
    assert "No route to host" in " ".join(ended.stdout.split())
    # The first to be lost may still be tried elsewhere; the last one cannot.
    assert ended.stderr.count("lost, tried again") <= 1
    assert len(with_ssh.read_text().split()) == 4


@pytest.mark.sample
def test_a_fleet_over_ssh_with_a_lost_node_and_a_wrong_bundle(
    tmp_path: Path, with_ssh: Path
) -> None:
    write_fleet(tmp_path, ("one",))
    write_bundle(tmp_path / "wrong", "onnxruntime", wrong_model())
    nodes = "".join(
        f'[[node]]\nkind = "{kind}"\nssh = "{host}"\n'
        for host, kind in (("unreachable", "orin"), ("orin-2", "orin"), ("nuc-1", "nuc"))
    )
    plan = write_plan(tmp_path, ("one", "wrong"))
    plan.write_text(plan.read_text() + nodes)
    ended = fleet(plan, "--json", "--report", "page.html")
    assert ended.returncode == 1, ended.stderr
    document = json.loads(ended.stdout)
    assert ended.stderr == ""
    assert {(job["bundle"], job["kind"]): job["state"] for job in document["jobs"]} == {
        ("one", "orin"): "passed",
        ("one", "nuc"): "passed",
        ("wrong", "orin"): "failed",
        ("wrong", "nuc"): "failed",
    }
    hosts = with_ssh.read_text().split()
    assert (hosts.count("unreachable"), hosts.count("orin-2"), hosts.count("nuc-1")) == (1, 2, 2)
    page = (tmp_path / "page.html").read_text()
    assert "2 of 4 jobs FAILED" in page
    again = fleet(plan)
    assert "4 jobs are done already" in again.stderr
    assert with_ssh.read_text().split() == hosts
    assert "FAILED: wrong on nuc" in again.stdout


@pytest.mark.slow
def test_ctrl_c_ends_cleanly_and_the_next_run_goes_on(tmp_path: Path) -> None:
    names = ("one", "two", "three", "four", "five")
    plan = write_fleet(tmp_path, names)
    process = subprocess.Popen(
        [*EFFNET_EDGE, "fleet", plan.name],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    jobs = tmp_path / "plan-fleet/jobs"
    until(lambda: jobs.is_dir() and any(jobs.glob("*.json")))
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=PROMPT_SECONDS)
    assert process.returncode == 130
    assert "the same command goes on" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert "not done yet" in output
    done = {path.name for path in jobs.glob("*.json")}
    assert 1 <= len(done) < len(names)
    before = {path: path.stat().st_mtime_ns for path in jobs.glob("*.json")}
    ended = fleet(plan)
    assert ended.returncode == 0, ended.stderr
    assert len(list(jobs.iterdir())) == len(names)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_node_ends_when_nobody_reads_its_result(tmp_path: Path) -> None:
    marker = tmp_path / "ready"
    script = (
        "import pathlib, sys, time\n"
        "from effnet_edge.fleet.node import end_with_reader\n"
        "end_with_reader(1)\n"
        f"pathlib.Path({str(marker)!r}).touch()\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    until(marker.exists)
    assert process.poll() is None
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(PROMPT_SECONDS) == -signal.SIGTERM


def test_a_plan_that_is_wrong_starts_nothing(tmp_path: Path) -> None:
    plan = write_fleet(tmp_path, ("one",))
    plan.write_text(plan.read_text() + 'kind = "nuc"\n')
    ended = fleet(plan)
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        "effnet-edge: error: plan.toml: bundle[1].kind: there is no such key: "
        "choose among path, kinds"
    ]
    assert not (tmp_path / "plan-fleet").exists()


@pytest.mark.parametrize("options", [["--node", "plan.toml"], ["--node", "--report", "x.html"]])
def test_a_node_takes_nothing_but_its_job(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "plan.toml").touch()
    ended = subprocess.run(
        [*EFFNET_EDGE, "fleet", *options], cwd=tmp_path, capture_output=True, check=False
    )
    assert ended.returncode == 2


def test_what_is_no_job_is_one_line() -> None:
    ended = run_command(OWN_COMMAND, b"hello", PROMPT_SECONDS)
    assert ended.code == 1
    assert ended.output == b""
    assert ended.errors.decode().startswith("effnet-edge: error: standard input: what it sent")
