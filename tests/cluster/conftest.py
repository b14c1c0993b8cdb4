"""A real SLURM of one machine and two virtual nodes, where its programs are installed (by `.ci/run`)."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munge", "munged", "scontrol", "squeue", "scancel")
CONF = """
ClusterName=tandem
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
FirstJobId={first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=5,sched_interval=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
JobRequeue=1
MinJobAge=3600
KillWait=5
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
NodeName=DEFAULT CPUs=2 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("slurm"))  # one SLURM for all of them, in one process


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator["Slurm"]:
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid():
        pytest.skip(f"no SLURM of our own: {', '.join(missing) + ' absent' if missing else 'not root'} (.ci/run installs it)")
    root = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool-n1", "spool-n2"):
        (root / name).mkdir()
    conf = root / "slurm.conf"
    # ports of its own, and other job ids (DDP makes its port of them): several sessions may run at a time
    first = random.SystemRandom().randrange(1000, 9000)
    conf.write_text(CONF.format(host=socket.gethostname(), root=root, ports=free_ports(3), first=first))
    cluster = Slurm(conf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Slurm:
    """Args:
    conf: slurm.conf.
    """

    def __init__(self, conf: Path):
        self.conf, self.children = conf, []

    def start(self) -> None:
        named = {word for line in Path("/etc/hosts").read_text().splitlines() for word in line.partition("#")[0].split()}
        if not {"n1", "n2"} <= named:  # the ranks of DDP meet at the name of their first node
            with open("/etc/hosts", "a") as stream:
                stream.write("\n127.0.0.1 n1 n2\n")
        # asked, not looked for: a daemon that was killed leaves its socket behind
        if subprocess.run(["munge", "-n"], capture_output=True, check=False).returncode:
            for folder in ("/run/munge", "/var/lib/munge", "/var/log/munge"):
                Path(folder).mkdir(parents=True, exist_ok=True)
                shutil.chown(folder, "munge", "munge")
            os.chmod("/run/munge", 0o755)
            subprocess.run(["runuser", "-u", "munge", "--", "/usr/sbin/munged", "--force"], check=True)
        for command in (["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]):
            log = open(self.conf.parent / f"{'-'.join(c.strip('-') for c in command)}.out", "w")
            with log:
                self.children.append(
                    subprocess.Popen([f"/usr/sbin/{command[0]}", *command[1:], "-f", str(self.conf)], stdout=log, stderr=log)
                )
        self.until(lambda: self.ask("sinfo", "-h", "-o", "%t").split()[:1] == ["idle"], 60, "nodes are not idle")

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user=root")
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:  # it waits for a step that hangs, and would keep the port of the next cluster
                child.kill()
                child.wait()

    def ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    def states(self, job: str) -> dict[str, str]:
        """Task → state, of an array."""
        lines = self.ask("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").split("\n")
        return {line.split()[0].partition("_")[2]: line.split()[1] for line in lines if line.strip()}

    def hurry(self) -> None:
        """Requeued jobs wait two minutes: let them start."""
        lines = self.ask("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r").split("\n")
        waiting = [line.split()[0] for line in lines if "BeginTime" in line]
        if waiting:
            time.sleep(2)  # a job that starts in the second in which it was requeued is killed: its credential is revoked
        for job in waiting:
            self.ask("scontrol", "update", f"jobid={job}", "StartTime=now")

    def until(self, true, seconds: float, what: str) -> None:
        limit = time.monotonic() + seconds
        while not true():
            queue = self.ask("squeue", "-r", "-t", "all")
            logs = "".join(f"{file}: {file.read_text()[-500:]}\n" for file in sorted(self.conf.parent.glob("*.log")))
            assert time.monotonic() < limit, f"{what} after {seconds} s\n{queue}{logs}"
            time.sleep(1)
