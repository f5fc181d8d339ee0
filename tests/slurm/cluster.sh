#!/usr/bin/env bash
# A real SLURM cluster of one node, on this machine, from Debian's packages:
#   apt-get install munge slurm-wlm
#   tests/slurm/cluster.sh start | stop | status
#
# It needs root (a container will do) and no cgroups. The node says that it has 4 CPUs, 64 GB and 2 GPUs, whatever
# the machine has: nothing binds a job to a device. `start` twice is `start` once; `stop` ends what `start`
# began and removes its configuration. A configuration that is not ours is never touched.
# Exit status 77: it cannot run here, and says why.
set -euo pipefail

CONF=/etc/slurm          # not elsewhere: a job does not inherit SLURM_CONF
RUN=/run/fgvc-slurm
MARK="# made by tests/slurm/cluster.sh"
CPUS=4
MEMORY_MB=64000

cannot() { echo "no cluster here: $1" >&2; exit 77; }

alive() { [ -s "$RUN/$1.pid" ] && kill -0 "$(cat "$RUN/$1.pid")" 2>/dev/null; }

check() {
    [ "$(id -u)" = 0 ] || cannot "it needs root"
    for program in munged slurmctld slurmd sbatch srun squeue scontrol; do
        PATH="$PATH:/usr/sbin" command -v "$program" >/dev/null ||
            cannot "$program is missing (apt-get install munge slurm-wlm)"
    done
    if [ -e "$CONF/slurm.conf" ] && ! grep -qF "$MARK" "$CONF/slurm.conf"; then
        cannot "$CONF/slurm.conf is there and not ours"
    fi
}

configure() {
    local host
    host=$(hostname -s)
    mkdir -p "$CONF" "$RUN/state" "$RUN/spool"
    chmod 755 "$RUN"
    [ -s "$RUN/munge.key" ] || (umask 077 && head -c 128 /dev/urandom >"$RUN/munge.key")
    cat >"$CONF/slurm.conf" <<CONF
$MARK
ClusterName=fgvc
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$RUN/munge.socket,cred_expire=5
StateSaveLocation=$RUN/state
SlurmdSpoolDir=$RUN/spool
SlurmctldPidFile=$RUN/slurmctld.pid
SlurmdPidFile=$RUN/slurmd.pid
SlurmctldLogFile=$RUN/slurmctld.log
SlurmdLogFile=$RUN/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MinJobAge=600
SchedulerParameters=sched_interval=2,batch_sched_delay=0,sched_min_interval=200000
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
GresTypes=gpu
NodeName=$host NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=$MEMORY_MB Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
PartitionName=gpus Nodes=$host MaxTime=INFINITE State=UP
CONF
    cat >"$CONF/gres.conf" <<CONF
$MARK
Name=gpu File=/dev/null
Name=gpu File=/dev/zero
CONF
}

start() {
    check
    if alive munged && alive slurmctld && alive slurmd && timeout 5 sinfo -h >/dev/null; then
        echo "it runs already"
        return
    fi
    stop_daemons
    configure
    PATH="$PATH:/usr/sbin"
    munged --force --key-file="$RUN/munge.key" --socket="$RUN/munge.socket" \
        --pid-file="$RUN/munged.pid" --log-file="$RUN/munged.log" --seed-file="$RUN/munged.seed"
    slurmctld -c
    slurmd
    for _ in $(seq 100); do
        sleep 0.2
        alive slurmctld && alive slurmd || continue
        if [ "$(timeout 5 sinfo -h -p main -o %T 2>/dev/null)" = idle ]; then
            echo "SLURM $(sinfo --version | cut -d' ' -f2): $(sinfo -h -p main -o '%n, %c CPUs, %m MB, %G')"
            return
        fi
    done
    for log in "$RUN"/*.log; do echo "== $log"; tail -n 5 "$log"; done >&2
    stop
    cannot "the daemons do not come up in 20 s"
}

stop_daemons() {
    for daemon in slurmd slurmctld munged; do
        if alive "$daemon"; then
            pid=$(cat "$RUN/$daemon.pid")
            kill "$pid"
            for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
            kill -9 "$pid" 2>/dev/null || true
        fi
    done
}

stop() {
    if alive slurmctld; then
        timeout 5 scancel --user="$(id -un)" 2>/dev/null || true
        for _ in $(seq 40); do [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break; sleep 0.2; done
    fi
    stop_daemons
    if grep -qsF "$MARK" "$CONF/slurm.conf"; then
        rm -f "$CONF/slurm.conf" "$CONF/gres.conf"
    fi
    rm -rf "$RUN"
}

case "${1:-}" in
    start) start ;;
    stop) check; stop ;;
    status) check; sinfo -N -l; squeue ;;
    *) echo "usage: $0 start|stop|status" >&2; exit 2 ;;
esac
