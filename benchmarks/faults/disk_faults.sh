#!/bin/sh
# Fills, protects and removes the folder of a real run while it trains, and says what the run did.
#
# sh benchmarks/faults/disk_faults.sh        (as root: it mounts a tmpfs)
set -u
disk=$(mktemp -d)
mount -t tmpfs -o size=20m tmpfs "$disk"
trap 'umount "$disk"; rmdir "$disk"' EXIT
python - "$disk/run.yaml" <<'END'
import sys

import yaml

config = {
    "ensemble_size": 2,
    "random_steps": 200,
    "train_batch_size_per_learner": 8,
    "replay_buffer_config": {"capacity": 20000},
    "model_config": {"fcnet_hiddens": [16, 16]},
    "min_sample_timesteps_per_iteration": 200,
}
spec = {"run": "CIKD", "env": "Pendulum-v1", "stop": {"timesteps_total": 2000}, "config": config}
with open(sys.argv[1], "w") as file:
    yaml.safe_dump({"run": spec}, file)
END

injure() {  # a name, the command that injures the disk, the command that heals it
    rm -rf "$disk/results"
    python -m rllib_command train file "$disk/run.yaml" --storage-path "$disk/results" \
        --checkpoint-freq 1 >/dev/null 2>"$disk.err" &
    run=$!
    while kill -0 $run 2>/dev/null && ! ls -d "$disk"/results/run/CIKD*/checkpoint_000002 >/dev/null 2>&1
    do sleep 0.2; done
    eval "$2"
    wait $run
    echo "$1: exit code $?, $(grep -c Traceback "$disk.err") tracebacks"
    grep "rllib: error\|go on\|again" "$disk.err"
    eval "$3"
    rm -f "$disk.err"
}

injure "full" 'mount -o remount,size=600k "$disk"; dd if=/dev/zero of="$disk/fill" 2>/dev/null' \
    'rm -f "$disk/fill"; mount -o remount,size=20m "$disk"'
injure "read-only" 'mount -o remount,ro "$disk"' 'mount -o remount,rw "$disk"'
injure "removed" 'rm -rf "$disk/results/run"' ':'
