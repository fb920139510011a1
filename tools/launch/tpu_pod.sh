#!/usr/bin/env bash
# Trains on a Cloud TPU pod, and again on a new one after a preemption.
#
#   export TPU=dgnet ZONE=us-central2-b TYPE=v4-32 NFS=10.0.0.2:/shared
#   tools/launch/tpu_pod.sh create           # a Spot pod with the checkout, its environment and /shared on all workers
#   tools/launch/tpu_pod.sh train --config=market --workdir=/shared/runs/market \
#     --config.data.root=/shared/Market-1501-v15.09.15 --config.log.checkpoint_every_steps=1000
#   tools/launch/tpu_pod.sh logs             # follows the log of the first worker
#   tools/launch/tpu_pod.sh stop             # SIGTERM to all workers: they save a checkpoint and end
#   tools/launch/tpu_pod.sh keep ARGUMENTS   # like train; makes a new pod whenever this one is lost, until all is done
#   tools/launch/tpu_pod.sh delete
#
# A pod costs money until it is deleted. NFS is a network file system that all workers can mount, like a Filestore
# instance: work folder and data must be there, because what is on the workers is lost with the pod. A preemption comes
# with little warning, so save often. Needs gcloud with a project (gcloud config set project ...), and for several
# workers an SSH agent with the key (ssh-add ~/.ssh/google_compute_engine).
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/../.."
THIS=tools/launch/tpu_pod.sh

: "${TPU:?name the pod}" "${ZONE:?name its zone}"
# Not needed by all commands: the size of the pod, its system, and the network file system.
TYPE=${TYPE:-} RUNTIME=${RUNTIME:-tpu-ubuntu2204-base} NFS=${NFS:-}

gtpu() { gcloud compute tpus tpu-vm "$1" "$TPU" --zone="$ZONE" "${@:2}"; }
workers() { gtpu ssh --worker=all --command="$1"; }
first_worker() { gtpu ssh --worker=0 --command="$1"; }

create() {
  : "${TYPE:?name the type of the pod, like v4-32}" "${NFS:?name the network file system, like 10.0.0.2:/shared}"
  gtpu create --accelerator-type="$TYPE" --version="$RUNTIME" --spot
  install
}

install() {
  tar --create --gzip --exclude=./.venv --exclude=./.git --exclude=./runs --file=/tmp/dgnet.tar.gz .
  gtpu scp /tmp/dgnet.tar.gz "$TPU": --worker=all
  # uv, because the system's Python may be older than 3.11.
  workers "set -e
    sudo apt-get -qq update && sudo apt-get -qq install -y nfs-common
    sudo mkdir -p /shared && { mountpoint -q /shared || sudo mount -t nfs '$NFS' /shared; }
    mkdir -p dgnet && tar --extract --gzip --directory=dgnet --file=dgnet.tar.gz
    python3 -m pip install --quiet --user uv && ~/.local/bin/uv venv --quiet --allow-existing --python=3.11 venv
    ~/.local/bin/uv pip install --quiet --python=venv/bin/python './dgnet[tfdata,tpu]'"
}

# Starts one process on each worker, in the background, so that it outlives the connection.
train() {
  local arguments
  arguments=$(printf '%q ' "$@")
  workers "if kill -0 \$(cat dgnet.pid) 2> /dev/null; then echo 'is running already' >&2; exit 1; fi
    rm -f dgnet.pid dgnet.status
    nohup sh -c 'venv/bin/dgnet train --distributed \"\$@\" & echo \$! > dgnet.pid
      wait \$!; echo \$? > dgnet.status' sh $arguments > dgnet.log 2>&1 < /dev/null &"
}

logs() { first_worker 'tail -n 50 -F dgnet.log'; }
stop() { workers "kill -TERM \$(cat dgnet.pid)"; }
delete() { gtpu delete --quiet; }

# What has become of the pod (READY, PREEMPTED, ...; ABSENT) and of the process on its first worker.
pod() {
  local state
  state=$(gcloud compute tpus tpu-vm list --zone="$ZONE" --filter="name~(^|/)$TPU\$" --format='value(state)')
  echo "${state:-ABSENT}"
}
process() {
  first_worker "if [ -f dgnet.status ]; then echo ended \$(cat dgnet.status)
    elif kill -0 \$(cat dgnet.pid) 2> /dev/null; then echo runs
    else echo 'not started'; fi"
}

keep() {
  local what
  while true; do
    what=$(pod || echo 'not reached')
    case $what in
      READY) what=$(process || echo 'not reached') ;;
      ABSENT) "$THIS" create && what='not started' ;; # may fail for lack of capacity: tries again
      PREEMPTED | TERMINATED | STOPPED) delete || true ;;
    esac
    case $what in
      'ended 0') echo "finished; now: $THIS delete" && return ;;
      # A mistake in the arguments, or stopped by hand.
      'ended 2' | 'ended 130') echo "$what; see $THIS logs" >&2 && return 1 ;;
      'ended 127') "$THIS" install && train "$@" || true ;; # the installation was interrupted
      ended* | 'not started') train "$@" || true ;; # may still end on other workers: tries again
    esac
    sleep "60"
  done
}

command=${1:-}
case $command in
  create | install | train | logs | stop | keep | delete) "$command" "${@:2}" ;;
  *) sed -n '2,/^set/{/^#/p}' "$THIS" >&2 && exit 2 ;;
esac
