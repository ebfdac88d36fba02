#!/usr/bin/env bash
# A SLURM of one machine with two nodes, one and two, of one job each, in a folder of its own; nothing of the system is
# changed. Needs root, and Debian's slurm-wlm and munge.
#   slurm.sh up FOLDER       then: export SLURM_CONF=FOLDER/slurm.conf
#   slurm.sh kill FOLDER two  as if the machine of this node had lost its power
#   slurm.sh down FOLDER
set -euo pipefail
PATH=$PATH:/usr/sbin
action=$1
folder=$(realpath "$2")
export SLURM_CONF=$folder/slurm.conf

start_node() {
  setsid slurmd -D -N "$1" >"$folder/$1.out" 2>&1 &
  echo $! >"$folder/$1.pid"
}

case $action in
up)
  for tool in munged slurmctld slurmd; do
    command -v $tool >/dev/null || { echo "$tool is missing: apt-get install slurm-wlm munge" >&2; exit 1; }
  done
  mkdir -p "$folder/state" "$folder/spool-one" "$folder/spool-two"
  chmod 755 "$folder"
  port=$((20000 + $$ % 20000))
  head -c 1024 /dev/urandom >"$folder/munge.key"
  chmod 600 "$folder/munge.key"
  munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munge.pid" \
    --log-file="$folder/munge.log" --seed-file="$folder/munge.seed"
  cat >"$SLURM_CONF" <<CONF
ClusterName=one
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SlurmdTimeout=8
SlurmctldTimeout=30
KillWait=5
MinJobAge=20
SchedulerParameters=sched_interval=2,requeue_delay=1
MpiDefault=none
NodeName=one NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 State=UNKNOWN
NodeName=two NodeHostname=$(hostname -s) NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 State=UNKNOWN
PartitionName=all Nodes=one,two Default=YES MaxTime=INFINITE State=UP
CONF
  setsid slurmctld -D >"$folder/slurmctld.out" 2>&1 &
  echo $! >"$folder/slurmctld-process"
  start_node one
  start_node two
  for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%T --Node 2>/dev/null | grep -c idle)" = 2 ] && exit 0
    sleep 0.5
  done
  sinfo >&2 || true
  tail -n 5 "$folder"/*.log >&2
  exit 1
  ;;
kill)
  # The daemon first, then the processes of its jobs with the daemons that watch them, so that nobody reports their end.
  kill -KILL "$(cat "$folder/$3.pid")"
  for process in /proc/[0-9]*; do
    number=${process#/proc/}
    settings=$(cat "$process/environ" 2>/dev/null | tr '\0' '\n') || continue
    grep -q "^SLURM_CONF=$SLURM_CONF$" <<<"$settings" && grep -q "^SLURMD_NODENAME=$3$" <<<"$settings" || continue
    parent=$(ps -o ppid= -p "$number" | tr -d ' ') || continue
    ! grep -q slurmstepd "/proc/$parent/cmdline" 2>/dev/null || kill -KILL "$parent" 2>/dev/null || true
    kill -KILL "$number" 2>/dev/null || true
  done
  ;;
down)
  scancel --user=root 2>/dev/null || true
  sleep 1
  for name in one.pid two.pid slurmctld-process munge.pid; do
    [ ! -e "$folder/$name" ] || kill "$(cat "$folder/$name")" 2>/dev/null || true
  done
  ;;
esac
