"""A real SLURM of one machine and two virtual nodes, where its programs are installed (by `.ci/run`)."""

import contextlib
import os
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
SlurmctldPort=16817
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
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[17001-17002] CPUs=2 \\
  SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000 State=UNKNOWN
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory) -> Iterator["Slurm"]:
    missing = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing or os.geteuid():
        pytest.skip(
            f"no SLURM of our own: {', '.join(missing) + ' absent' if missing else 'not root'} (.ci/run installs it)"
        )
    root = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool-n1", "spool-n2"):
        (root / name).mkdir()
    conf = root / "slurm.conf"
    conf.write_text(CONF.format(host=socket.gethostname(), root=root))
    cluster = Slurm(conf)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(conf))
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.stop()


class Slurm:
    """Args:
    conf: slurm.conf.
    """

    def __init__(self, conf: Path):
        self.conf, self.children = conf, []

    def start(self) -> None:
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
                self.children.append(subprocess.Popen([f"/usr/sbin/{command[0]}", *command[1:], "-f", str(self.conf)],
                                                      stdout=log, stderr=log))  # fmt: skip
        self.until(lambda: self.ask("sinfo", "-h", "-o", "%t").split()[:1] == ["idle"], 60, "nodes are not idle")

    def stop(self) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user=root")
        for child in reversed(self.children):
            child.terminate()
        for child in self.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(20)

    def ask(self, *command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout

    def states(self, job: str) -> dict[str, str]:
        """Task → state, of an array."""
        lines = self.ask("squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i %T").split("\n")
        return {line.split()[0].partition("_")[2]: line.split()[1] for line in lines if line.strip()}

    def hurry(self) -> None:
        """Requeued jobs wait two minutes: let them start."""
        for line in self.ask("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r").split("\n"):
            if "BeginTime" in line:
                self.ask("scontrol", "update", f"jobid={line.split()[0]}", "StartTime=now")

    def until(self, true, seconds: float, what: str) -> None:
        limit = time.monotonic() + seconds
        while not true():
            queue = self.ask("squeue", "-r", "-t", "all")
            logs = "".join(f"{file}: {file.read_text()[-500:]}\n" for file in sorted(self.conf.parent.glob("*.log")))
            assert time.monotonic() < limit, f"{what} after {seconds} s\n{queue}{logs}"
            time.sleep(1)
