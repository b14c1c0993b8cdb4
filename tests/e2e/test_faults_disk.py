"""Disks that fill up, at the start and at any byte, and files that may not be touched.

A limit on the size of a file (RLIMIT_FSIZE) stops a write anywhere, as a full disk does; as root a small tmpfs is a
truly full one. Whatever the moment: exit code 2, nothing half-written, and the same command goes through with room.
"""

import contextlib
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import COMMANDS, MAKE_RUN, assert_nothing_changed, assert_refused, furnish, shorten_quickstart, snapshot

from research.data.rankings import read_run

VERBS = [verb for verb in COMMANDS if verb not in ("validate", "test", "tokenize")]
# validate and test write into a run of fit's: _training; tokenize writes nothing
COVERED = [(fault, verb) for fault in ("full disk", "no permission") for verb in VERBS]
WRITERS = {
    **{verb: COMMANDS[verb] for verb in VERBS},
    "retrieve, fused": COMMANDS["retrieve"] + " --retriever bm25",
    "retrieve, hnsw": COMMANDS["retrieve"] + " --index hnsw",
    "retrieve, reranked": COMMANDS["retrieve"] + " --reranker ./reranker",
    "mine, reranked": COMMANDS["mine"] + " --retriever bm25 --reranker ./reranker --margin 0",
}
CURE = ("expected a writable place with room", "run the same command again")
LIMITS = sorted({int(1.4**n) for n in range(45)})  # bytes a file may have, to 2.7 MB: every write meets some of them
PAGE = 4096


@pytest.fixture
def place(research, collection, tiny_bert, tiny_reranker, tmp_path, monkeypatch):
    """The tests' place with ./run made, and a short `quickstart`."""
    furnish(tmp_path, tiny_bert, monkeypatch, tiny_reranker)
    shorten_quickstart(monkeypatch)
    assert research(*MAKE_RUN.split()).code == 0
    return tmp_path


@pytest.fixture
def tmpfs(tmp_path):
    """mount(options) → a folder that is a file system of its own; skipped where that is not allowed."""
    mounted = []

    def mount(options: str) -> Path:
        folder = tmp_path / "disk"
        folder.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here ({done.stderr.strip()}); needs root")
        mounted.append(folder)
        return folder

    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tmpfs needs root")
    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def file_size_limit(size: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def outside(out: str) -> dict[str, bytes]:
    return {name: content for name, content in snapshot().items() if not name.startswith(f"{out}/")}


def assert_fails_cleanly(result, command: str, out: Path, *words: str) -> dict[Path, bytes]:
    """A refusal that leaves no final file and no temporary one; returns the runs of finished stages.

    `quickstart` is three commands: what a finished one printed and wrote stays.
    """
    if command == "quickstart":
        result.out = ""
    assert_refused(result, *words)
    left = [path for path in [*out.rglob("*"), *Path("cache").rglob("*")] if path.is_file()]
    assert not [path for path in left if ".tmp" in path.name]
    final = {out / name for name in ("metrics.json", "store.json", "index.html")}
    if command == "fit":  # of the best validation until the training has ended
        final.remove(out / "metrics.json")
    assert not final & set(left)
    for path in left:
        assert path.name != "metrics.json" or "finished" not in json.loads(path.read_text())
        if path.suffix == ".json":
            facts = json.loads(path.read_text())
            assert path.name != "negatives.jsonl.json" or facts["sha256"] is None
        if path.name == "negatives.jsonl":  # complete, though its facts do not say so yet
            assert [json.loads(line)["query_id"] for line in path.read_text().splitlines()] == ["q0", "q2", "q4", "q6"]
    return {path: path.read_bytes() for path in left if path.suffix == ".trec"}


@pytest.mark.sample(5)
@pytest.mark.parametrize("command", WRITERS)
def test_write_that_fails_at_any_byte_is_refused_and_goes_through_later(command, research, place):
    refused, finished = 0, {}
    before = outside("out")
    for size in LIMITS:
        with file_size_limit(size):
            result = research(*WRITERS[command].split())
        if result.code == 0:
            break
        refused += 1
        finished |= assert_fails_cleanly(result, command, Path("out"), "cannot write", *CURE)
        assert outside("out") == before
    assert result.code == 0
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert refused > 10
    again = research(*WRITERS[command].replace("--out out", "--out again").split())
    assert again.code == 0, again.err  # what the cache was left with can be used
    for path in finished:  # as runs: a fused run lists its queries in another order when its parts were read from files
        if path.is_relative_to("out"):
            assert read_run(Path("again") / path.relative_to("out")) == read_run(path)


@pytest.mark.sample(5)
@pytest.mark.parametrize("command", WRITERS)
def test_disk_that_fills_up_after_the_check_is_refused_and_goes_through_later(command, research, place, tmpfs, monkeypatch):
    step = 16 if command in ("fit", "quickstart") else 1  # checkpoints and model take 2 MB, the page 1 MB
    disk = tmpfs(f"size={64 * step * PAGE}")
    usage = shutil.disk_usage(place)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)  # what was free at the check is taken by others later
    monkeypatch.setenv("TANDEM_CACHE", str(disk / "cache"))
    argv = onto_disk(WRITERS[command])
    refused, finished = 0, {}
    for free in range(0, 64 * step, step):
        (disk / "others").write_bytes(b"\1" * PAGE * max(0, _free_pages(disk) + _pages(disk / "others") - free))
        result = research(*argv)
        if result.code == 0:
            break
        refused += 1
        finished |= assert_fails_cleanly(result, command, disk / "out", "No space left on device", *CURE)
    assert result.code == 0
    assert all(path.read_bytes() == content for path, content in finished.items())
    assert refused > 1


def onto_disk(command: str) -> list[str]:
    """The command with its results in disk/out; a sweep's YAML says where they go."""
    sweep = Path("sweep.yaml")
    sweep.write_text(sweep.read_text().replace('"out/', '"disk/out/'))
    return command.replace("--out out", "--out disk/out").split()


def _free_pages(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize // PAGE


def _pages(path: Path) -> int:
    return path.stat().st_size // PAGE if path.exists() else 0


@pytest.mark.parametrize("command", ["encode", "retrieve", "mine", "quickstart", "fit"])
def test_disk_without_room_is_refused_before_anything_is_computed(command, research, place, tmpfs, monkeypatch):
    disk = tmpfs(f"size={PAGE * 64}")
    monkeypatch.setattr("research.retrieval.encode.encode_batch", None)  # called, it would raise
    monkeypatch.setattr("research.retrieval.lexical.Bm25.build", None)
    result = research(*COMMANDS[command].replace("--out out", "--out disk/out").split())
    assert_fails_cleanly(result, command, disk / "out", " MiB but ", "MiB free", "free space, or name another folder")


@pytest.mark.parametrize("command", VERBS)
def test_read_only_disk_is_refused(command, research, place, tmpfs):
    disk = tmpfs("ro")
    result = research(*onto_disk(COMMANDS[command]))
    assert_fails_cleanly(result, command, disk / "out", "disk/out", "Read-only file system", *CURE)


# ---- in a process of its own, as a user meets it --------------------------------------------------------------------


def process(argv: str, prefix: tuple[str, ...] = (), **options):
    from tests.conftest import ROOT, Result

    environment = {**os.environ, "TANDEM_CACHE": "cache", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "research", *shlex.split(argv)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.sample(2)
@pytest.mark.parametrize("command", VERBS)
def test_process_whose_writes_fail_says_so_in_one_paragraph(command, place, request, research):
    if command == "quickstart":
        request.getfixturevalue("minilm")  # a process of its own has the real data and model

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (600, 600))

    assert_fails_cleanly(process(COMMANDS[command], preexec_fn=limit), command, Path("out"), "cannot write", *CURE)
    if command != "quickstart":
        assert research(*COMMANDS[command].split()).code == 0


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """What to put before a command so that permissions count: root passes over them unless it drops that power."""
    if os.geteuid() != 0:
        return ()
    prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
    if shutil.which("setpriv") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("root may read and write everything, and setpriv cannot drop that here")
    return prefix


@pytest.mark.sample(4)
@pytest.mark.parametrize(
    ("command", "forbidden", "words"),
    [
        ("encode", "collection/corpus.jsonl", ("cannot be read", "expected a readable file", "permissions")),
        ("encode", "model/model.safetensors", ("cannot read", "expected a path", "permissions")),
        ("retrieve", "collection/queries.jsonl", ("cannot be read", "expected a readable file", "permissions")),
        ("retrieve", "model/config.json", ("cannot read", "expected a path", "permissions")),
        ("retrieve", ".", ("cannot write", *CURE)),
        ("mine", "collection/queries.jsonl", ("cannot be read", "expected a readable file", "permissions")),
        ("mine", "model/config.json", ("cannot read", "expected a path", "permissions")),
        ("mine", ".", ("cannot write", *CURE)),
        ("evaluate", "good.trec", ("cannot be read", "expected a readable file", "permissions")),
        ("evaluate", ".", ("cannot write", *CURE)),
        ("report", "run/metrics.json", ("cannot read", "expected a path", "permissions")),
        ("report", ".", ("cannot write", *CURE)),
        ("quickstart", ".", ("cannot write", *CURE)),
        ("fit", "dual.yaml", ("cannot be read", "expected a readable YAML file", "permissions")),
        ("fit", "collection/corpus.jsonl", ("cannot be read", "expected a readable file", "permissions")),
        ("fit", "model/model.safetensors", ("cannot read", "expected a path", "permissions")),
        ("fit", ".", ("cannot write", *CURE)),
        ("validate", "model/config.json", ("cannot read", "expected a path", "permissions")),
        ("test", "collection/queries.jsonl", ("cannot be read", "expected a readable file", "permissions")),
    ],
)
def test_what_may_not_be_touched_is_refused(command, forbidden, words, place, unprivileged):
    path = Path(forbidden)
    mode = path.stat().st_mode
    before = snapshot()
    path.chmod(0o500 if path.is_dir() else 0)
    try:
        result = process(COMMANDS[command], unprivileged)
    finally:
        path.chmod(mode)
    assert_refused(result, "out" if forbidden == "." else forbidden, *words)
    assert_nothing_changed(before)
