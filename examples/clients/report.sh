#!/bin/sh
# Report for the job that this process belongs to: report.sh KIND [DETAIL].
# A line in the file is all it takes; with mosquitto_pub and jq it is sent over MQTT too, which is a little faster.
set -eu
detail=$(printf %s "${2:-}" | tr '\001-\037' ' ' | sed 's/[\\"]/\\&/g')
id=$(od -An -N12 -tx1 /dev/urandom | tr -d ' \n')
event=$(printf '{"id":"%s","job_id":"%s","kind":"%s","at":"%s","detail":"%s"}' \
    "$id" "$DELEGATE_JOB_ID" "$1" "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$detail")
printf '\n%s\n' "$event" >>"$DELEGATE_JOB_DIR/reports.jsonl"

if command -v jq >/dev/null && command -v mosquitto_pub >/dev/null; then
    jq -r '.broker | .host, .port, .user, .password' "$DELEGATE_JOB_CONNECTION" | {
        read -r host && read -r port && read -r user && read -r password &&
            timeout 2 mosquitto_pub -h "$host" -p "$port" -u "$user" -P "$password" -q 1 -r \
                -t "delegate-job/v1/$DELEGATE_JOB_ID/report/$1" -m "$event"
    } || true # It is recorded.
fi
