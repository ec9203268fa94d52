"""A plan is checked whole before anything starts: one line with the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet_bundles import write_fleet
from open_bundles import write_open
from tiny_bundles import tiny_model, write_bundle

from effnet_edge.errors import UsageError
from effnet_edge.fleet.plan import CommandNode, read_plan

ORIN = '[[node]]\nkind = "orin"\nssh = "edge@orin-1"\n'
SWEEP = '[[sweep]]\nvariants = ["b0"]\ntargets = ["openvino"]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fleet")
    write_fleet(made, ("one",))
    write_bundle(made / "sub" / "one", "onnxruntime", tiny_model())
    return made


def planned(folder: Path, text: str) -> Path:
    plan = folder / "tried.toml"
    plan.write_text(text)
    return plan


def test_without_nodes_this_machine_does_all(folder: Path) -> None:
    plan = read_plan(planned(folder, '[[bundle]]\npath = "one"\n'))
    assert [(node.kind, node.ssh) for node in plan.nodes] == [("here", None)]
    assert plan.kinds == ("here",)
    assert plan.bundles[0].path == folder / "one"
    assert (plan.jobs.retries, plan.pictures.limit, plan.ray) == (2, 64, None)


def test_a_bundle_runs_on_all_kinds_or_those_that_it_names(folder: Path) -> None:
    nodes = ORIN + '[[node]]\nkind = "nuc"\n'
    plan = read_plan(planned(folder, nodes + '[[bundle]]\npath = "one"\n'))
    assert plan.bundles[0].kinds == ("orin", "nuc")
    plan = read_plan(planned(folder, nodes + '[[bundle]]\npath = "one"\nkinds = ["nuc"]\n'))
    assert plan.bundles[0].kinds == ("nuc",)
    assert plan.nodes[0] == CommandNode("edge@orin-1", "orin", "edge@orin-1", "effnet-edge")


def test_a_sweep_is_every_combination_and_budgets_are_of_int8(folder: Path) -> None:
    text = (
        '[[sweep]]\nvariants = ["b0", "lite0"]\ntargets = ["openvino", "onnxruntime"]\n'
        'precisions = ["fp32", "int8"]\nbudgets = [{}, {max-kl = 0.02}, {max-drop = 1}]\n'
        'options = ["--weights", "random"]\n'
    )
    exports = read_plan(planned(folder, ORIN + text)).exports
    assert len(exports) == 2 * 2 * (1 + 3)
    assert len({each.name for each in exports}) == len(exports)
    by_name = {each.name: each for each in exports}
    assert by_name["b0-openvino-int8-max-kl-0.02"].arguments == (
        *("b0", "--target", "openvino", "--int8", "--max-kl", "0.02"),
        *("--weights", "random"),
    )
    assert by_name["lite0-onnxruntime-fp32"].arguments[3:] == ("--fp32", "--weights", "random")


def test_this_machine_exports_where_the_nodes_are_elsewhere(folder: Path) -> None:
    plan = read_plan(planned(folder, ORIN + SWEEP))
    assert (plan.exports[0].on, plan.exports[0].kinds) == ("here", ("orin",))
    assert [node.kind for node in plan.nodes] == ["orin", "here"]
    plan = read_plan(planned(folder, ORIN + '[[node]]\nkind = "nuc"\n' + SWEEP))
    assert plan.exports[0].on == "nuc"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "bundle: there is nothing to do"),
        ("bundles = 1", "bundles: there is no such key: choose among"),
        ("bundle = 1", "bundle: is one table"),
        ('[bundle]\npath = "one"', "bundle: is one table"),
        ("[[bundle]]", "bundle[1].path: is missing"),
        ('[[bundle]]\npath = ""', "bundle[1].path: is ''"),
        ('[[bundle]]\npath = "none"', "bundle[1].path: {folder}/none: no such bundle"),
        ('[[bundle]]\npath = "pictures"', "bundle[1].path: {folder}/pictures: is not a bundle"),
        ('[[bundle]]\npath = "one"\nkind = "nuc"', "bundle[1].kind: there is no such key"),
        (
            '[[bundle]]\npath = "one"\n[[bundle]]\npath = "one"\nkinds = ["orin"]',
            "bundle[2].kinds: no node is of kind 'orin': there are here",
        ),
        ('[[bundle]]\npath = "one"\nkinds = []', "bundle[1].kinds: is empty"),
        ('[[bundle]]\npath = "one"\nkinds = ["A B"]', "bundle[1].kinds: 'A B' is no name"),
        ('[[bundle]]\npath = "one"\n[[bundle]]\npath = "sub/one"', "two bundles are called 'one'"),
        ('kinds = ["x"]\n[[bundle]]\npath = "one"', "kinds: no node is of kind 'x'"),
        ('[ray]\n[[bundle]]\npath = "one"', "bundle[1].kinds: is missing: with Ray"),
        ('[ray]\nport = 1\n[[bundle]]\npath = "one"', "ray.port: there is no such key"),
        ('[ray]\naddress = "ray://a:1"\n[[bundle]]\npath = "one"', "ray.address: is 'ray://a:1'"),
        ('kinds = ["memory"]\n[ray]\n[[bundle]]\npath = "one"', "kinds: 'memory' is no name"),
        ('kinds = ["x"]\n[ray]\n' + SWEEP, "sweep[1].on: is missing: with Ray"),
        (ORIN + '[ray]\n[[bundle]]\npath = "one"', "ray: there are nodes, too"),
        ('[[node]]\nssh = "a"', "node[1].kind: is missing"),
        ('[[node]]\nkind = "x"\nssh = "-oProxyCommand=id"', "node[1].ssh: is '-oProxyCommand=id'"),
        ('[[node]]\nkind = "x"\nssh = "a b"', "node[1].ssh: is 'a b'"),
        ('[[node]]\nkind = "x"\nprogram = "y"', "node[1].program: only a node with ssh"),
        ('[[node]]\nkind = "x"\n[[node]]\nkind = "y"', "node[2].ssh: is missing"),
        ('[[node]]\nkind = "here"\nssh = "a"', "node[1].kind: 'here' is this machine"),
        ('[[sweep]]\nvariants = ["b0"]', "sweep[1].targets: is missing"),
        ('[[sweep]]\nvariants = ["b99"]\ntargets = ["openvino"]', "sweep[1].variants: "),
        ('[[sweep]]\nvariants = ["b0"]\ntargets = ["tvm"]', "sweep[1].targets: there is no 'tvm'"),
        (SWEEP + 'precisions = ["int4"]', "sweep[1].precisions: there is no 'int4'"),
        (SWEEP + 'precisions = ["int8"]\nbudgets = [{max-speed = 1}]', "sweep[1].budgets: "),
        (SWEEP + 'precisions = ["int8"]\nbudgets = [{max-kl = "a"}]', "sweep[1].budgets: 'a'"),
        (
            SWEEP + 'precisions = ["int8"]\nbudgets = [{max-kl = inf}]',
            "sweep[1].budgets: inf is no",
        ),
        (SWEEP + "budgets = [{max-kl = 0.1}]", "sweep[1].budgets: are of INT8 alone"),
        (SWEEP + 'options = ["-o", "/"]', "sweep[1].options: -o is set by the sweep itself"),
        (SWEEP + 'on = "orin"', "sweep[1].on: no node is of kind 'orin'"),
        (
            '[pictures]\nimages = "no"\n[[bundle]]\npath = "one"',
            "pictures.images: {folder}/no",
        ),
        ('[pictures]\nlimit = 0\n[[bundle]]\npath = "one"', "pictures.limit: is 0"),
        ('[bench]\nruns = true\n[[bundle]]\npath = "one"', "bench.runs: is True"),
        ('[jobs]\nretries = -1\n[[bundle]]\npath = "one"', "jobs.retries: is -1"),
        ('[gate]\nmax-speed = 1\n[[bundle]]\npath = "one"', "there is no limit 'max-speed'"),
        ('gate = 1\n[[bundle]]\npath = "one"', "gate must be a table"),
        *(
            (f'{name} = {value}\n[[bundle]]\npath = "one"', f"{name} must be a table, not")
            for name in ("pictures", "gate", "bench", "jobs", "ray")
            for value in ("false", "0", '""', "[]")
        ),
        *(
            (f"{SWEEP}options = {value}", "sweep[1].options: is")
            for value in ("false", "0", '""', "{}")
        ),
        ('trusted = "key.pem"\n[[bundle]]\npath = "one"', "trusted: {folder}/key.pem does not"),
        ('trusted = "pictures"\n[[bundle]]\npath = "one"', "trusted: {folder}/pictures: the key"),
        ('trusted = "tried.toml"\n[[bundle]]\npath = "one"', "tried.toml: is no public key in PEM"),
        ("[[", "is not TOML"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_file_and_the_key(
    folder: Path, text: str, told: str
) -> None:
    plan = planned(folder, text)
    with pytest.raises(UsageError) as refused:
        read_plan(plan)
    message = str(refused.value)
    assert str(plan) in message
    assert told.format(folder=folder) in message
    assert "\n" not in message
    assert refused.value.exit_code == 2


def test_a_bundle_of_several_graphs_is_built_first(folder: Path) -> None:
    write_open(folder / "several")
    with pytest.raises(UsageError) as caught:
        read_plan(planned(folder, '[[bundle]]\npath = "several"\n'))
    assert "several: carries 3 graphs (fp16, int8-budget-50, int8), of which the device" in str(
        caught.value
    )


def test_a_plan_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.toml' cannot be read"):
        read_plan(tmp_path / "none.toml")


def test_paths_are_relative_to_the_plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    plan = read_plan(Path(folder.name) / "plan.toml")
    assert plan.pictures.images == Path(folder.name) / "pictures"
    assert plan.limits == {"min-agreement": 100.0, "min-sqnr": 60.0}
