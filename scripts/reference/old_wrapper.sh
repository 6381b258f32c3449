#!/usr/bin/env bash
# The old kind of wrapper that delegate-job is measured against: it needs a Mosquitto that runs already, keeps its
# registry in a JSON file, starts a subscriber, sleeps so that the subscriber is there in time, opens the agent in
# tmux and waits for its `completed`.
# Not a program to use: it loses reports, knows no verdict, and a dead agent keeps it waiting for ever.
# usage: old_wrapper.sh REGISTRY.json PORT WORKDIR AGENT
set -euo pipefail
registry=$1 port=$2 workdir=$3 agent=$4

job=job-$(date +%s%N)
export JOB_ID=$job MQTT_PORT=$port

record() { # STATE
    python3 -c '
import json, os, sys
path, job, state, workdir = sys.argv[1:]
jobs = json.load(open(path)) if os.path.exists(path) else {}
jobs[job] = {"state": state, "workdir": workdir}
json.dump(jobs, open(path, "w"))' "$registry" "$job" "$1" "$workdir"
}

record registered
coproc events { exec mosquitto_sub -h 127.0.0.1 -p "$port" -q 1 -t "jobs/$job/#"; }
subscriber=$!
# What nobody hears is lost, so it is given a second to subscribe.
sleep 1

tmux -L "$job" new-session -d -s "$job" -c "$workdir" "$agent"

while read -r event <&"${events[0]}"; do
    if [ "$event" = completed ]; then break; fi
done
record completed
kill "$subscriber"
