// Follow a job: print its state whenever it changes, and end with its exit code. node follow.mjs ID [PASSWORD]
// Needs `npm install` here. PASSWORD is for an external broker: `status --connection` does not tell it.
// Of a job that is done already it ends with 2, and with 75 when the connection is lost before the end.
import { spawnSync } from "node:child_process";
import mqtt from "mqtt";

const [id, password] = process.argv.slice(2);
const asked = spawnSync("delegate-job", ["status", id, "--connection", "--json"], { stdio: ["ignore", "pipe", "inherit"] });
if (asked.status !== 0) process.exit(asked.status ?? 70);
const { url, user, token, topics } = JSON.parse(asked.stdout);
const client = mqtt.connect(url, { username: user, password: token ?? password, reconnectPeriod: 0 });
let latest = 0;

client.on("connect", () => client.subscribe(topics.replace("#", "state"), { qos: 1 }));
client.on("message", (_topic, payload) => {
  const { state, outcome, exit_code, sequence = 0 } = JSON.parse(payload);
  if (sequence < latest) return;
  latest = sequence;
  console.log(outcome ? `${state} ${outcome}` : state);
  if (state !== "done") return;
  process.exitCode = exit_code;
  client.end();
});
client.on("error", (error) => console.error(`error: ${error.message}`));
// Without a word on the end: another owner has another address, so ask again.
client.on("close", () => (process.exitCode ??= 75));
