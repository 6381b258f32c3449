// Tells delegate-job what happens in an OpenCode session: one process of its hook for each event, in order; and
// hands what a user answers to a dialog on to OpenCode. Decides nothing by itself, and is silent when anything
// fails. HOOK is the command of a hook, filled in for one job.
//
// Seen in opencode 1.18.33.

import { spawn } from "node:child_process"

const HOOK = []
const LIMIT = 15000 // milliseconds after which a hook is ended
const CUT = 4000 // characters of a text that are told

const cut = (value) => (typeof value === "string" ? value.slice(0, CUT) : undefined)

const run = (event, payload, timeout = LIMIT) =>
  new Promise((resolve) => {
    let said = ""
    try {
      const [program, ...args] = HOOK
      const child = spawn(program, [...args, event], { stdio: ["pipe", "pipe", "ignore"], timeout })
      child.on("error", () => resolve(""))
      child.on("close", () => resolve(said))
      child.stdout.on("data", (data) => (said += data))
      child.stdin.on("error", () => {})
      child.stdin.end(JSON.stringify(payload))
    } catch {
      resolve("")
    }
  })

export const DelegateJob = async ({ client }) => {
  let main // the session that a person sees; others are of subagents
  let last // what the model said last in it
  let queue = Promise.resolve("")

  const tell = (event, payload) => {
    queue = queue.then(() => run(event, payload))
    return queue
  }

  // The hook of a dialog ends when the dialog does: the others must not wait for it.
  const wait = (event, payload, path) =>
    queue.then(async () => {
      const said = await run(event, payload, 0)
      if (!said) return
      const request = { url: `/${path}/{requestID}/reply`, path: { requestID: payload.id } }
      const headers = { "Content-Type": "application/json" }
      await client._client.post({ ...request, body: JSON.parse(said), headers })
    }).catch(() => {})

  const ask = async (sessionID, text) => {
    if (!text) return
    const parts = [{ type: "text", text }]
    await client.session.promptAsync({ path: { id: sessionID }, body: { parts } }).catch(() => {})
  }

  const heard = {
    "session.created": ({ info }) => {
      if (info?.parentID) return
      main = info?.id
      tell("session.created", { session_id: main })
    },
    "session.status": ({ sessionID, status }) => {
      if (sessionID !== main || status?.type !== "retry") return
      tell("session.retry", { attempt: status.attempt, message: cut(status.message) })
    },
    "session.error": ({ sessionID, error }) => {
      if (sessionID && main && sessionID !== main) return
      tell("session.error", { name: cut(error?.name), message: cut(error?.data?.message) })
    },
    "session.idle": ({ sessionID }) => {
      if (sessionID !== main) return
      tell("session.idle", { last }).then((text) => ask(sessionID, text))
      last = undefined
    },
    "permission.asked": ({ id, permission, metadata, patterns }) => {
      const command = cut(metadata?.command) ?? cut(Array.isArray(patterns) ? patterns.join(" ") : undefined)
      wait("permission.asked", { id, tool: permission, input: { command } }, "permission")
    },
    "permission.replied": ({ requestID, reply }) => tell("permission.replied", { id: requestID, reply }),
    "question.asked": ({ id, questions }) => wait("question.asked", { id, questions }, "question"),
    "question.replied": ({ requestID }) => tell("question.replied", { id: requestID }),
    "question.rejected": ({ requestID }) => tell("question.rejected", { id: requestID }),
    "message.part.updated": ({ part }) => {
      if (part?.sessionID === main && part?.type === "text") last = cut(part.text)
    },
  }

  return {
    event: async ({ event }) => {
      try {
        heard[event?.type]?.(event.properties ?? {})
      } catch {}
    },
    "chat.message": async (input, output) => {
      if (main && input?.sessionID !== main) return
      main ??= input?.sessionID
      const text = output?.parts?.find((part) => part?.type === "text")?.text
      tell("chat.message", { session_id: main, prompt: cut(text) })
    },
    "tool.execute.after": async (input) => {
      tell("tool.execute.after", { tool: input?.tool, input: { command: cut(input?.args?.command) } })
    },
  }
}
