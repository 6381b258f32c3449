// Report for the job that this process belongs to: node report.mjs KIND [DETAIL]. Needs nothing but Node.
import { randomUUID } from "node:crypto";
import { fsyncSync, openSync, writeSync } from "node:fs";

const [kind, detail] = process.argv.slice(2);
const { DELEGATE_JOB_ID: job_id, DELEGATE_JOB_DIR: directory } = process.env;
const event = { id: randomUUID(), job_id, kind, at: new Date().toISOString(), detail };
const file = openSync(`${directory}/reports.jsonl`, "a", 0o600);
writeSync(file, `\n${JSON.stringify(event)}\n`);
fsyncSync(file);
