#!/usr/bin/env bash
# The old kind of wrapper that delegate-job is measured against: it needs a Mosquitto that runs already, starts a
# subscriber, sleeps so that the subscriber is there in time, opens the agent in tmux, waits for its `completed`.
# Not a program to use: it loses reports, knows no verdict, and a dead agent keeps it waiting for ever.
# usage: old_wrapper.sh REGISTRY.json PORT WORKDIR AGENT
set -euo pipefail
registry=$1 port=$2 workdir=$3 agent=$4

job=job-$(date +%s%N)
export JOB_ID=$job MQTT_PORT=$port
printf '{"id": "%s", "workdir": "%s", "agent": "%s", "state": "running"}\n' "$job" "$workdir" "$agent" >>"$registry"

coproc events { exec mosquitto_sub -h 127.0.0.1 -p "$port" -q 1 -t "jobs/$job/#"; }
subscriber=$!
# What nobody hears is lost, so it is given a second to subscribe.
sleep 1

tmux -L "$job" new-session -d -s "$job" -c "$workdir" "$agent"

while read -r event <&"${events[0]}"; do
    if [ "$event" = completed ]; then break; fi
done
printf '{"id": "%s", "state": "completed"}\n' "$job" >>"$registry"
kill "$subscriber"
