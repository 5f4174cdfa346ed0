#!/usr/bin/env bash
# Trains a study on a cluster of two nodes, made of one machine. Linux, as root.
#
#   benchmarks/cluster.sh [STUDY] [FOLDER]
#
# The second node has a network, an address, a host name, processes and a /tmp of its own, as another
# machine would have; FOLDER, not below /tmp, is the disk that both share. Prints how many results each
# node gave, and fails if one gave none.
set -euo pipefail

study=${1:-quick}
folder=$(realpath -m "${2:-cluster-results}")
name=$(basename "$study" .yaml)
head=10.77.0.1 other=10.77.0.2 port=6399 space=cikd-node-2

stop() {
    kill %1 2>/dev/null && wait %1 || true  # its Ray alone: there may be others on this machine
    grep -qs "$head:$port" /tmp/ray/ray_current_cluster && rm /tmp/ray/ray_current_cluster
    ip netns pids "$space" 2>/dev/null | xargs --no-run-if-empty kill -9 || true
    ip netns delete "$space" 2>/dev/null || true
}
trap stop EXIT

ip netns add "$space"
ip link add cikd-a type veth peer name cikd-b netns "$space"
ip addr add "$head/24" dev cikd-a
ip link set cikd-a up
ip -n "$space" addr add "$other/24" dev cikd-b
ip -n "$space" link set cikd-b up
ip -n "$space" link set lo up

export RAY_AUTH_MODE=token RAY_AUTH_TOKEN  # as Ray protects a cluster by default
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | base64)
logs=${TMPDIR:-/tmp}
ray start --head --node-ip-address "$head" --port "$port" --num-cpus 1 --include-dashboard false \
    --block >"$logs/cikd-node-1.log" 2>&1 &
ip netns exec "$space" unshare --mount --uts --ipc --pid --fork --mount-proc bash -c "
    hostname node-2
    mount -t tmpfs tmpfs /tmp
    exec ray start --address $head:$port --node-ip-address $other --num-cpus 1 --block
" >"$logs/cikd-node-2.log" 2>&1 &
for _ in {1..60}; do
    [ "$(ray status --address "$head:$port" 2>/dev/null | grep -c '^ 1 node_')" = 2 ] && break
    sleep 1
done

rllib study run "$study" --ray-address "$head:$port" --storage-path "$folder"

cat "$folder/$name"/*/*/result.json | grep -o '"node_ip": "[^"]*"' | sort | uniq -c
for node in "$head" "$other"; do
    grep -q "\"node_ip\": \"$node\"" "$folder/$name"/*/*/result.json
done
