"""The Job that a sweep becomes: Kubernetes' own schema takes it, and what its API server checks beyond the schema holds."""

import copy
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from research.errors import UserError
from research.sweeps import directives
from research.sweeps.kubernetes import Options, job, name_of, parse_claim, text_of, write
from research.sweeps.submission import Submission, numbers, ranges
from research.sweeps.submit_options import options_from

FIXTURES = Path(__file__).parents[1] / "fixtures" / "kubernetes"
VERSIONS = ("1.29", "1.33", kubernetes_validate.latest_version())  # failures per index: on by default, final, now
Asked = tuple[directives.Options, Options]


def asked(**values: object) -> Asked:
    """Least options, but for these: of a task, and of the Job."""
    options = options_from({"image": "tandem", "claim": "team:/mnt/team", "kubernetes": True} | values)
    return options.cluster, options.pods


FULL = asked(
    image="registry.example/tandem:1",
    claim="team/me/tandem:/mnt/team",
    throttle=2,
    cpus=4,
    gpus=1,
    mem="16G",
    namespace="research",
    env=["HF_HUB_OFFLINE=1", "EMPTY="],
    secret=["wandb"],
    setup=["source env.sh"],
    warning=90,
    max_failed=5,
)
LEAST = asked()


def kept(file: str, folder: str) -> Submission:
    return Submission("lora", Path(file), Path(folder) / "plan.jsonl", Path(folder), 0)


def made(options: Asked = FULL, indices: tuple[int, ...] = (0, 2, 3)) -> dict:
    """As kubectl reads it."""
    return yaml.safe_load(text_of(job("lora-1", kept("sweeps/lora.yaml", "runs/lora"), indices, *options)))


GOLDEN = {
    "full": (FULL, [0, 2, 3]),
    "least": (LEAST, [0, 2, 3]),
    "cpus": (asked(cpus=2, setup=("cd $(pwd)", 'echo "$X"')), range(0, 300, 7)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_file_is_written_byte_for_byte_as_it_was(name):
    options, indices = GOLDEN[name]
    text = text_of(job("lora-1", kept("sweeps/$(HOME).yaml", "runs/a\nb: c"), indices, *options))
    assert text == (FIXTURES / f"{name}.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("options", [FULL, LEAST, asked(cpus=2)], ids=["full", "least", "cpus"])
def test_kubernetes_schema_takes_the_job(options, version):
    kubernetes_validate.validate(made(options), version, strict=True)


FAULTS = {
    "unknown key of the spec": (("spec",), "backoffLimitPerIndx", 2),
    "unknown key of the pod": (("spec", "template", "spec"), "restartpolicy", "Never"),
    "unknown key of a container": (("spec", "template", "spec", "containers", 0), "volumMounts", []),
    "unknown key of a rule": (("spec", "podFailurePolicy", "rules", 1, "onExitCodes"), "value", [85]),
    "a count in quotes": (("spec",), "completions", "3"),
    "seconds in quotes": (("spec", "template", "spec"), "terminationGracePeriodSeconds", "90"),
    "exit codes that are no list": (("spec", "podFailurePolicy", "rules", 2, "onExitCodes"), "values", 2),
    "a variable that is a number": (("spec", "template", "spec", "containers", 0, "env", 0), "value", 1),
    "a command that is one text": (("spec", "template", "spec", "containers", 0), "command", "python -m research"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_schema_refuses_each_planted_fault(fault):
    """The check above is worth something."""
    broken = copy.deepcopy(made())
    place, name, value = FAULTS[fault]
    inner = broken
    for step in place:
        inner = inner[step]
    inner[name] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("options", [FULL, LEAST], ids=["full", "least"])
def test_what_the_api_server_checks_and_no_schema_says(options):
    found = made(options)
    spec, pod = found["spec"], found["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["completionMode"] == "Indexed"
    assert pod["restartPolicy"] == "Never"  # a failure policy is taken with no other one
    assert spec["podReplacementPolicy"] == "Failed"  # nor with another one
    assert 1 <= spec["parallelism"] <= spec["completions"] == 3
    assert 0 <= spec.get("maxFailedIndexes", 0) <= spec["completions"]
    for rule in spec["podFailurePolicy"]["rules"]:
        assert ("onExitCodes" in rule) != ("onPodConditions" in rule)
        if codes := rule.get("onExitCodes"):
            assert codes["containerName"] == container["name"]
            assert codes["values"] == sorted({*codes["values"]} - {0})
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["resources"].get("requests") == container["resources"].get("limits")
    for volume in container["volumeMounts"]:
        assert not volume.get("subPath", "").startswith("/")


def test_exit_codes_mean_what_they_mean_everywhere():
    """2 and 3 are never tried again, 85 does not count, nor a pod that is evicted; whatever else is tried twice more."""
    spec = made()["spec"]
    rules = [
        (rule["action"], rule.get("onExitCodes", {}).get("values") or rule["onPodConditions"][0]["type"])
        for rule in spec["podFailurePolicy"]["rules"]
    ]
    # in this order: an evicted pod whose training ends with 2 or with 1 is still an evicted one
    assert rules == [("Ignore", "DisruptionTarget"), ("Ignore", [85]), ("FailIndex", [2, 3])]
    assert spec["backoffLimitPerIndex"] == 2
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 90
    assert "maxFailedIndexes" not in made(LEAST)["spec"]  # all points run, whatever becomes of the others
    assert spec["maxFailedIndexes"] == 3  # no more than there are


def test_options_arrive_in_the_pod():
    (container,) = made()["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"}
    assert {one["name"]: one["value"] for one in container["env"]} == {
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "EMPTY": "",
    }
    assert container["envFrom"] == [{"secretRef": {"name": "wandb"}}]
    assert container["volumeMounts"][0] == {"name": "work", "mountPath": "/mnt/team", "subPath": "me/tandem"}
    assert container["workingDir"] == "/mnt/team"
    assert container["command"][:3] == ["/bin/bash", "-c", 'set -e\nsource env.sh\nexec "$@"']
    assert made()["metadata"]["namespace"] == "research"
    least = made(LEAST)["spec"]
    assert least["parallelism"] == 3
    assert least["template"]["spec"]["containers"][0]["resources"] == {}
    (small,) = made(asked(cpus=2))["spec"]["template"]["spec"]["containers"]
    assert {"name": "OMP_NUM_THREADS", "value": "2"} in small["env"]
    (own,) = made(asked(cpus=2, env=("OMP_NUM_THREADS=1",)))["spec"]["template"]["spec"]["containers"]
    assert [one["value"] for one in own["env"] if one["name"] == "OMP_NUM_THREADS"] == ["1"]


def test_a_folder_s_name_is_no_variable_of_kubernetes():
    """It expands $(NAME) in a command; $$( is how it writes the text $(."""
    options = asked(setup=("cd $(pwd)",))
    spec = job("lora-1", kept("sweeps/$(HOME).yaml", "runs/a\nb: c"), [0], *options)
    (container,) = yaml.safe_load(text_of(spec))["spec"]["template"]["spec"]["containers"]
    assert "sweeps/$$(HOME).yaml" in container["command"]
    assert "runs/a\nb: c" in container["command"]  # YAML quotes it
    assert "cd $$(pwd)" in container["command"][2]
    assert container["command"][-1] == "$(JOB_COMPLETION_INDEX)"


@pytest.mark.parametrize("indices", [[0], [0, 1, 2, 3], [1, 4, 5, 9], list(range(0, 300, 7))])
def test_completion_indices_are_the_points_that_are_left(indices):
    (container,) = made(LEAST, tuple(indices))["spec"]["template"]["spec"]["containers"]
    command = container["command"]
    assert command[-2:] == ["--index", "$(JOB_COMPLETION_INDEX)"]  # which kubelet replaces
    assert numbers(command[command.index("--of") + 1]) == indices
    assert numbers(ranges(indices)) == indices


@pytest.mark.parametrize(("text", "memory"), [("512", "512Mi"), ("16G", "16Gi"), ("16Gi", "16Gi"), ("2T", "2Ti")])
def test_memory_is_written_as_for_slurm(text, memory):
    (container,) = made(asked(mem=text))["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"memory": memory}


@pytest.mark.parametrize("text", ["16GB", "lots", "-1G", "1.5G", "0", "5i"])
def test_other_memory_is_refused(text):
    with pytest.raises(UserError, match=r"--mem .*; expected a number with K, M, G or T.*Correct it"):
        made(asked(mem=text))


@pytest.mark.parametrize("text", ["KEY", "=x", "1A=x", "A-B=x", "Ä=x"])
def test_variables_without_a_name_are_refused(text):
    with pytest.raises(UserError, match="expected NAME=VALUE"):
        made(asked(env=(text,)))


@pytest.mark.parametrize(
    ("text", "parts"), [("team:/mnt/team", ("team", "", "/mnt/team")), ("a.b/me/x:/w/y", ("a.b", "me/x", "/w/y"))]
)
def test_claims_are_taken_apart(text, parts):
    assert parse_claim(text) == parts


@pytest.mark.parametrize("text", ["team", "team:work", ":/data", "Team:/data", "team/:/data", "team/../x:/data", "team:/"])
def test_other_claims_are_refused(text):
    with pytest.raises(UserError, match="expected NAME:/path"):
        parse_claim(text)


def test_names_are_dns_labels_and_new_ones(tmp_path):
    seen = []
    for sweep in ("lora_r_alpha", "lora_r_alpha", "Über 9000!", "9-lives", "x" * 80, "___"):
        name = name_of(sweep, tmp_path)
        # a pod's host name is the Job's name, a dash and the index: 63 characters at most
        assert re.fullmatch(r"[a-z]([-a-z0-9]{0,51})", name), name
        assert not name.endswith("-")
        found = job(name, kept("s.yaml", "runs"), [0], *LEAST)
        label = found["spec"]["template"]["metadata"]["labels"]["sweep"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", label), label
        write(tmp_path, found)
        seen.append(name)
    assert seen[:2] == ["lora-r-alpha-1", "lora-r-alpha-2"]
    assert len({*seen}) == len(seen)
