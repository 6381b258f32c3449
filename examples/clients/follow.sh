#!/usr/bin/env bash
# Follow a job: print its state whenever it changes, and end with its exit code. follow.sh ID [URL]
# Needs mosquitto_sub and jq. URL is for an external broker, whose password `status --connection` does not tell.
set -euo pipefail
connection() { delegate-job status "$1" --connection 2>/dev/null; }
if where=$(connection "$1"); then
    url=${2:-${where%%$'\n'*}} topics=${where##*$'\n'}
    exec 3< <(exec mosquitto_sub -q 1 -L "$url/${topics%#}state")
    subscriber=$!
    trap 'kill $subscriber' EXIT # By itself it would try to connect again for ever.
    while read -r -t 5 job <&3 || (($? > 128)); do
        if [[ $job ]]; then
            jq -r '[.state, .outcome // empty] | join(" ")' <<<"$job"
            if [[ $(jq -r .state <<<"$job") == done ]]; then break; fi
        elif [[ $(connection "$1") != "$where" ]]; then
            kill $subscriber
            exec bash "$0" "$@" # Another owner has another broker.
        fi
    done
fi
# MQTT is only the wire: what counts is what the registry says.
delegate-job wait "$1" >/dev/null
