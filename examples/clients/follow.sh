#!/usr/bin/env bash
# Follow a job: print its state whenever it changes, and end with its exit code. follow.sh ID [URL]
# Needs mosquitto_sub and jq. URL is for an external broker, whose password `status --connection` does not tell.
set -euo pipefail
if where=$(delegate-job status "$1" --connection 2>/dev/null); then
    url=${2:-${where%%$'\n'*}} topics=${where##*$'\n'}
    exec 3< <(exec mosquitto_sub -q 1 -L "$url/${topics%#}state")
    trap 'kill '$! EXIT # By itself it would try to connect again for ever.
    while read -r job <&3; do
        jq -r '[.state, .outcome // empty] | join(" ")' <<<"$job"
        if [[ $(jq -r .state <<<"$job") == done ]]; then break; fi
    done
fi
# MQTT is only the wire: what counts is what the registry says.
delegate-job wait "$1" >/dev/null
