"""Sources → plain sweeps: ties, conditions, zips and sizes, and what is refused."""

from pathlib import Path

import pytest
import yaml

from research.errors import UserError
from research.sweeps.command import lost_in_text, ours
from research.sweeps.compile import compile_source
from research.sweeps.sampling import drawn, grid, probes
from research.sweeps.spec import read_sweep
from tests.conftest import ROOT

BASE = "method: grid\nconfigs: [a.yaml, b.yaml]\n"


def source(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "question.yaml"
    path.write_text(BASE + text)
    return path


def points(tmp_path: Path, text: str, size: str = "") -> list[dict]:
    made = compile_source(source(tmp_path, text))[size]
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(made, sort_keys=False))
    return list(grid(read_sweep(tmp_path / "plain.yaml")))


def test_alpha_is_twice_r(tmp_path):
    found = points(
        tmp_path,
        "parameters: {model.adapter.r: {values: [4, 8]}, seed_everything: {values: [0, 1]}}\n"
        "tie: {model.adapter.lora_alpha: 2 * model.adapter.r}\n",
    )
    assert found == [
        {"model.adapter": {"r": r, "lora_alpha": 2 * r}, "seed_everything": seed} for r in (4, 8) for seed in (0, 1)
    ]


def test_a_variable_that_is_no_option_is_an_axis_of_the_tie(tmp_path):
    found = points(
        tmp_path,
        "let: {scale: [1, 2]}\nparameters: {model.adapter.r: {values: [4, 8]}}\n"
        "tie: {model.adapter.lora_alpha: scale * model.adapter.r}\n",
    )
    pairs = [(p["model.adapter"]["r"], p["model.adapter"]["lora_alpha"]) for p in found]
    assert pairs == [(4, 4), (8, 8), (4, 8), (8, 16)]


def test_values_that_a_tie_makes_twice_are_one_point(tmp_path):
    found = points(
        tmp_path,
        "let: {x: [0, 1]}\nparameters: {data.limit: {values: [4, 8]}}\ntie: {data.val_limit: data.limit * 0 + 8 * x ** 0}\n",
    )
    assert [p["data"] for p in found] == [{"limit": 4, "val_limit": 8}, {"limit": 8, "val_limit": 8}]


def test_conditions_give_each_case_its_own_options(tmp_path):
    found = points(
        tmp_path,
        """
parameters: {seed_everything: {values: [0]}}
cases:
  - model.adapter: {class_path: peft.PromptTuningConfig}
    model.adapter.init_args.num_virtual_tokens: [4, 8]
  - {model.train_layers: 2, model.optimisation.lr: 1.0e-4}
""",
    )
    assert [p["model"] for p in found] == [
        {"adapter": {"class_path": "peft.PromptTuningConfig"}, "adapter.init_args.num_virtual_tokens": 4},
        {"adapter": {"class_path": "peft.PromptTuningConfig"}, "adapter.init_args.num_virtual_tokens": 8},
        {"train_layers": 2, "optimisation.lr": 1e-4},
    ]


def test_zip_joins_lists_value_by_value(tmp_path):
    found = points(tmp_path, "zip: [{data.max_length: [128, 256], data.batch_size: [32, 16]}]\n")
    assert [p["data"] for p in found] == [{"batch_size": 32, "max_length": 128}, {"batch_size": 16, "max_length": 256}]


def test_a_size_overlays_configurations_and_lists(tmp_path):
    text = (
        "parameters: {data.limit: {values: [1, 2, 3]}}\n"
        "sizes: {quick: {configs: [quick.yaml], parameters: {data.limit: {values: [1]}}}}\n"
    )
    assert len(points(tmp_path, text)) == 3
    assert len(points(tmp_path, text, "quick")) == 1
    made = compile_source(source(tmp_path, text))
    assert made[""]["command"] == [
        "research",
        "fit",
        "-c",
        "a.yaml",
        "-c",
        "b.yaml",
        "--out",
        "runs/sweeps/question/{point}",
        "${args}",
    ]
    assert made["quick"]["command"][6:8] == ["-c", "quick.yaml"]
    assert made["quick"]["name"] == "question-quick"


SIZED = """
let: {scale: [1, 2]}
parameters: {model.adapter.r: {values: [4, 8]}, seed_everything: {values: [0, 1, 2]}}
tie: {model.adapter.lora_alpha: scale * model.adapter.r}
sizes:
  quick: {parameters: {model.adapter.r: {values: [4]}}}
  narrow: {let: {scale: [2]}, parameters: {data.limit: {value: 9}}}
  one: {let: null, tie: null, parameters: {seed_everything: null}}
"""


def test_a_source_s_own_name_is_that_of_its_sweeps_and_folders(tmp_path):
    text = "name: mine\nparameters: {seed_everything: {values: [0, 1]}}\nsizes: {quick: {}, tiny: {name: other}}\n"
    made = compile_source(source(tmp_path, text))
    assert [one["name"] for one in made.values()] == ["mine", "mine-quick", "other"]
    folders = [f"runs/sweeps/{name}/{{point}}" for name in ("mine", "mine-quick", "other")]
    assert [one["command"][one["command"].index("--out") + 1] for one in made.values()] == folders


def test_a_size_changes_the_parameters_that_it_names_and_keeps_the_others(tmp_path):
    quick, narrow, one = (points(tmp_path, SIZED, size) for size in ("quick", "narrow", "one"))
    assert [(p["model.adapter"]["lora_alpha"], p["seed_everything"]) for p in quick] == [
        (alpha, seed) for alpha in (4, 8) for seed in (0, 1, 2)
    ]
    assert {(p["model.adapter"]["lora_alpha"], p["data.limit"]) for p in narrow} == {(8, 9), (16, 9)}
    assert one == [{"model.adapter.r": 4}, {"model.adapter.r": 8}]  # null drops a name, or all of them


def test_compile_says_how_many_points_and_seeds_each_size_has(tmp_path, research, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source(tmp_path, SIZED)
    told = research("sweep", "compile", "question.yaml", "--out", "plain")
    assert told.out.splitlines() == [
        "plain/question.yaml  12 points: 4 settings × 3 seeds",
        "plain/quick/question.yaml  6 points: 2 settings × 3 seeds",
        "plain/narrow/question.yaml  6 points: 2 settings × 3 seeds",
        "plain/one/question.yaml  2 points, a seed each (seed_everything is not swept)",
    ], told.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sizes: {quick: {parameters: {seed: null}}}\n", "drops 'seed', which is not there"),
        ("sizes: {quick: [a.yaml]}\n", "sizes.quick is list"),
        ("sizes: {quick: {tie: 3}}\n", "sizes.quick.tie is int"),
        ("sizes: {quick: {sizes: {}}}\n", "sizes.quick has sizes"),
        ("parameters: {a.r: {values: [1]}}\ntie: {a.b: 2 * a.q}\n", "'a.q', which is neither"),
        ("parameters: {a.r: {values: [1]}}\ntie: {a.b: 2 *}\n", "is no expression"),
        ("parameters: {a.r: {values: [1]}}\ntie: {a.b: a.r % 2}\n", "expected numbers, options"),
        ("parameters: {a.r: {values: [0]}}\ntie: {a.b: 1 / a.r}\n", "division by zero"),
        ("parameters: {a.r: {values: [x]}}\ntie: {a.b: a.r / 2}\n", "expected numbers"),
        ("parameters: {a.r: {min: 1, max: 4}}\ntie: {a.b: a.r}\n", "drives a tie and is no list"),
        ("let: {s: [1]}\nparameters: {a.r: {values: [1]}}\n", "'s', which no tie uses"),
        ("zip: [{a.x: [1, 2], a.y: [1]}]\n", "different lengths (a.x 2, a.y 1)"),
        ("zip: [{a.x: [1], b.y: [1]}]\n", "no section in common"),
        ("zip: [{a.x: [1], a.y: [1]}, {a.z: [1], a.u: [2]}]\n", "two groups of options are both called a"),
        ("zip: [{a.x: [1], a.y: [1]}]\nparameters: {a.x.z: {values: [1]}}\n", "an axis of its own and part of a group"),
        ("parameters: {a: {values: [1]}}\nparameters: {b: {values: [1]}}\n", "'parameters' is there twice"),
        ("cases: {a: 1}\n", "expected a list"),
    ],
)
def test_a_source_that_no_sweep_can_say_is_refused(text, says, tmp_path):
    with pytest.raises(UserError) as error:
        compile_source(source(tmp_path, text))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method: grid\n", "has no parameters"),
        ("method: gird\nparameters: {a: {values: [1]}}\n", "method is 'gird'"),
        ("method: grid\nparamters: {}\n", "unknown key 'paramters'"),
        ("method: grid\ntie: {}\n", "it is a source"),
        ("method: grid\nparameters: {a: {min: 0.0, max: 1.0}}\n", "a grid has no end over it"),
        ("method: grid\nparameters: {a: [1, 2]}\n", "expected `values"),
        ("method: grid\nparameters: {a: {parameters: {b: [1]}}}\n", "a.b is '[1]'"),
        ("method: grid\nparameters: {a: {parameters: {b: {values: [1]}}, value: 3}}\n", "parameters and 'value'"),
        ("method: grid\nparameters: {a: {parameters: {b: {values: [1]}}}, a.b: {value: 3}}\n", "dotted and nested"),
        ("method: grid\nparameters: {a: {parameters: {}}}\n", "a.parameters is '{}'"),
        ("method: grid\nparameters: {'a b': {values: [1]}}\n", "is called 'a b'"),
        ("method: grid\nmetric: {name: x, gaol: maximize}\nparameters: {a: {values: [1]}}\n", "metric has 'gaol'"),
        (
            "method: grid\nparameters: {a: {values: [1, 2], probabilities: [0.5, 0.5]}}\n",
            "probabilities, and a grid takes every",
        ),
        ("method: grid\nparameters: {a: {distribution: q_log_uniform_values, min: 1, max: 8}}\n", "a grid has no end over it"),
        ("method: grid\nparameters: {a: {vales: [1]}}\n", "distribution None"),
        ("method: random\nparameters: {a: {distribution: log_uniform_values, min: 0.0, max: 1.0}}\n", "expected above 0"),
        (
            "method: random\nparameters: {a: {distribution: log_uniform, min: 1.0, max: 1000.0}}\n",
            "takes min and max of it as exponents",
        ),
        ("method: random\nparameters: {a: {min: 1e-4, max: 1.0}}\n", "write 1.0e-4"),
        ("method: random\nparameters: {a: {min: 2, max: 1}}\n", "expected min below max"),
        ("method: random\nparameters: {a: {values: [1, 2], probabilities: [1.0]}}\n", "for each of the 2 values"),
        ("method: bayes\nparameters: {a: {min: 0.0, max: 1.0}}\n", "bayes without a metric"),
        ("method: grid\nrun_cap: 0\nparameters: {a: {values: [1]}}\n", "run_cap=0"),
        ("method: grid\ncommand: [research, fit]\nparameters: {a: {values: [1]}}\n", "no ${args}"),
        ("method: grid\ncommand: [x, '${arsg}']\nparameters: {a: {values: [1]}}\n", "${arsg}"),
        ("method: grid\nparameters: {a: {values: [1]}}\n", "there is no program"),
        (
            "method: grid\ncommand: [x, '${args}']\nmetric: {name: l}\nearly_terminate: {type: hyperband}\n"
            "parameters: {a: {values: "
            "[1]}}\n",
            "neither min_iter nor max_iter",
        ),
        *[
            (f"method: grid\n{text}\n", says)
            for text, says in (
                ("program: t.py\njob: me/p/job:v1\nparameters: {a: {values: [1]}}", "has job, by which W&B Launch starts"),
                ("program: t.py\nmetrics: [{name: a}, {name: b}]\nparameters: {a: {values: [1]}}", "has metrics, by which"),
                ("program: t.py\nmetric: {goal: maximize}\nparameters: {a: {values: [1]}}", "metric has no name"),
                ("program: t.py\nmetric: {name: x, target: 1e-4}\nparameters: {a: {values: [1]}}", "metric.target='1e-4'"),
                ("program: t.py\nmetric: {name: x, impute: wrost}\nparameters: {a: {values: [1]}}", "did you mean 'worst'"),
                ("program: [t.py, -v]\nparameters: {a: {values: [1]}}", "program is \"['t.py', '-v']\""),
                ("program: t.py\nkind: sweeps\nparameters: {a: {values: [1]}}", "did you mean 'sweep'"),
                ("program: t.py\nparameters: {no: {values: [1]}}", "is called False (bool)"),
                ("program: t.py\nparameters: {--lr: {values: [1]}}", "without its hyphens"),
                ("program: t.py\nparameters: {a: {parameters: {-b: {values: [1]}}}}", "is called '-b'"),
                ('program: t.py\nparameters: {a: {values: ["x\\0y"]}}', "has a value with '\\x00'"),
                ('program: t.py\nparameters: {a: {values: [{k: ["\\uD800"]}]}}', "has a value with '\\ud800'"),
                ('command: ["x\\0", "${args}"]\nparameters: {a: {values: [1]}}', "'\\x00' in a word"),
                ('command: [bash, -c, "python t.py ${args}"]\nparameters: {a: {values: [1]}}', "has ${args} within the word"),
                (
                    'program: t.py\ncommand: [bash, -c, "python ${program}", "${args}"]\nparameters: {a: {values: [1]}}',
                    "has ${program} within the word",
                ),
                ('command: ["${envvar:token}", "${args}"]\nparameters: {a: {values: [1]}}', "command has ${envvar:token}"),
            )
        ],
    ],
)
def test_a_sweep_that_is_none_is_refused(text, says, tmp_path):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError) as error:
        read_sweep(tmp_path / "s.yaml")
    assert says in str(error.value)


def sweep(tmp_path: Path, text: str):
    (tmp_path / "s.yaml").write_text(text)
    return read_sweep(tmp_path / "s.yaml")


def test_a_random_sweep_is_a_function_of_its_seed_and_longer_ones_begin_alike(tmp_path):
    one = sweep(
        tmp_path,
        "method: random\nname: n\ncommand: [x, '${args}']\nparameters: {a: {min: 0.0, max: 1.0}, b: {values: [1, 2, 3]}}\n",
    )
    assert drawn(one, 0, 5) == drawn(one, 0, 9)[:5]
    assert drawn(one, 0, 5) != drawn(one, 1, 5)
    assert len({p["a"] for p in drawn(one, 0, 20)}) == 20


def test_probes_hold_the_extremes_of_each_parameter(tmp_path):
    one = sweep(
        tmp_path, "method: random\ncommand: [x, '${args}']\nparameters: {a: {min: 0.0, max: 2.0}, b: {values: [1, 2]}}\n"
    )
    found = probes(one, 0, 3)
    assert {0.0, 1.0, 2.0} <= {p["a"] for p in found}
    assert {1, 2} <= {p["b"] for p in found}


def test_null_is_lost_in_a_command_and_kept_in_json():
    point = {"a": None, "b": "null", "c": 1}
    assert lost_in_text(point) == ["a"]
    assert lost_in_text(point, ["x", "${args}", "${args_json}"]) == ["a"]
    assert lost_in_text(point, ["x", "${args_json}"]) == lost_in_text(point, ["x", "${args_json_file}"]) == []


def test_null_is_handed_to_other_programs_as_w_and_b_s_agent_hands_it(tmp_path):
    from research.sweeps.plan import describer, plan

    text = "method: grid\ncommand: [{}, '${{args}}']\nparameters: {{a: {{values: [null, 1]}}}}\n"
    foreign = sweep(tmp_path, text.format("x"))
    points = plan(foreign, describer(foreign, program=None))
    assert [one.argv for one in points] == [["x", "--a=None"], ["x", "--a=1"]]
    with pytest.raises(UserError, match="1 of 2 points cannot be run, the first a=None: a is null"):
        plan(sweep(tmp_path, text.format("research")), lambda argv: {"point": str(argv)})


def test_reasons_are_told_once_and_one_that_all_points_have_ends_the_plan(tmp_path, capsys):
    """In the words of a sweep: an option of `fit` is passed by --set."""
    from research.sweeps.plan import as_setting, plan

    text = "method: grid\ncommand: [research, fit, '${{args}}']\nparameters: {{a: {{values: {}}}}}\n"
    asked = []

    def describe(argv: list[str]) -> dict:
        asked.append(argv)
        value = int(argv[-1].partition("=")[2])
        if value < 3:
            raise UserError(f"none; expected some. Name it by --data.val FILE.jsonl{', or raise it' if value == 2 else ''}.")
        return {"point": str(value)}

    with pytest.raises(UserError) as error:
        plan(sweep(tmp_path, text.format([3, 0, 1, 2])), describe)
    assert "3 of 4 points cannot be run, the first a=0: none; expected some. Name it by --set data.val=FILE.jsonl." in str(
        error.value
    )
    assert capsys.readouterr().err.count("1 of 4 points, the first a=2: none;") == 1
    asked.clear()
    with pytest.raises(UserError, match="8 of 12 points cannot be run, and the other 4 were not looked at, the first a=0"):
        plan(sweep(tmp_path, text.format([0] * 12)), describe)
    assert len(asked) == 8
    many = "--data.train_split train[:90%], --data.skip_bad_rows true (--model.max_length reads more), or --out DIR."
    assert as_setting(many) == (
        "--set data.train_split=train[:90%], --set data.skip_bad_rows=true (--set model.max_length=… reads more), or --out DIR."
    )


def test_a_shell_gets_program_and_values_by_the_cure_that_is_named(tmp_path):
    import subprocess

    with pytest.raises(UserError) as error:
        sweep(
            tmp_path,
            "method: grid\nprogram: t.py\ncommand: [bash, -c, 'python ${program}', '${args}']\n"
            "parameters: {a: {values: [1]}}\n",
        )
    cure = str(error.value).partition("in a shell, ")[2].rstrip(".").replace("python", "echo")
    one = sweep(tmp_path, f"method: grid\nprogram: t.py\ncommand: {cure}\nparameters: {{a: {{values: ['x y']}}}}\n")
    done = subprocess.run(one.argv_of({"a": "x y"}), capture_output=True, text=True, check=True)
    assert done.stdout == "t.py --a=x y\n"


def test_a_mapping_may_be_put_into_another_one_that_overrides_it(tmp_path):
    """PyYAML puts the names of `<<` into the node: they are no repeats, wherever the mapping is used again."""
    text = """method: grid
program: t.py
parameters:
  model:
    parameters:
      base: &x
        <<: &q {distribution: q_uniform, min: 0, max: 4, q: 1}
        max: 2
  y: {<<: *x, min: 1}
  z: {<<: *q}
"""
    facts = yaml.safe_load(text)
    assert sweep(tmp_path, text).facts == facts
    with pytest.raises(UserError, match="'max' is there twice"):
        sweep(
            tmp_path,
            text.replace("max: 2", "max: 2, max: 3").replace("        max: 2, max: 3", "        max: 2\n        max: 3"),
        )


def test_variables_of_the_environment_are_filled_in(tmp_path, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    one = sweep(
        tmp_path,
        "method: grid\ncommand: [x, '${envvar:PLACE}/a', '${envvar:NOWHERE}', '${args}']\nparameters: {a: {values: [1]}}\n",
    )
    assert one.argv_of({"a": 1}) == ["x", "here/a", "NOWHERE", "--a=1"]  # as W&B's agent does


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["research", "fit", "-c", "x"], ["fit", "-c", "x"]),
        (["/usr/bin/env", "python", "-m", "research", "fit"], ["fit"]),
        (["python3.11", "-m", "research", "fit"], ["fit"]),
        (["python", "train.py"], None),
        (["/usr/bin/env", "bash"], None),
    ],
)
def test_our_own_verbs_are_told_from_foreign_commands(argv, expected):
    assert ours(argv) == expected


SHIPPED = sorted((ROOT / "sweeps/src").glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_are_what_their_sources_make(path, research):
    result = research("sweep", "compile", path, "--check")
    assert result.code == 0, result.err


PLAIN = sorted([*(ROOT / "sweeps").glob("*.yaml"), *(ROOT / "sweeps/quick").glob("*.yaml")])


@pytest.mark.parametrize("path", PLAIN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_sweeps_are_w_and_b_s_and_of_a_size_to_finish(path):
    pytest.importorskip("sweeps", reason="the package sweeps, which has W&B's schema, is not installed")
    from sweeps.config import schema_violations_from_proposed_config

    assert schema_violations_from_proposed_config(yaml.safe_load(path.read_text())) == []
    one = read_sweep(path)
    assert one.size <= 36
    seeds = next(p for p in one.parameters if p.name == "seed_everything")
    assert 2 <= len(seeds.values) <= 3


@pytest.mark.parametrize("macro", ["args", "args_no_hyphens", "args_no_equals", "args_no_boolean_flags", "args_json"])
def test_commands_are_those_of_w_and_b_s_agent(macro, tmp_path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    point = {"a.b": 1e-05, "c": True, "d": False, "e": {"r": 4, "x": None}, "f": "text", "g": 3}
    one = sweep(tmp_path, f"method: grid\ncommand: [x, '${{{macro}}}']\nparameters: {{a: {{values: [1]}}}}\n")
    theirs = create_sweep_command_args({"args": {name: {"value": value} for name, value in point.items()}})[macro]
    assert one.argv_of(point) == ["x", *theirs]
