// A receiver of ticket webhooks in Express, as an integrator would write it with
// nothing but Express and Node's own crypto: verify, deduplicate, react to the
// watched tickets, answer 200.
//
//   SECRET   signing secret of the webhook
//   PARSER   which v1 of the signature header counts: "first" or "last"
//   WATCHED  ticket ids to react to, separated by commas
//
// It prints one JSON object per line: {"listening"}, then {"processed"},
// {"duplicate"} or {"rejected"} for every request. A line {"secret": "..."} on
// its input replaces the secret and is answered with {"replaced": true}; it ends
// when its input ends.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createInterface } from "node:readline";
import express from "express";

const tolerance = 5 * 60; // seconds, as the documentation advises
const watched = new Set((process.env.WATCHED ?? "").split(",").filter(Boolean));
const lastWins = process.env.PARSER === "last";
let secret = process.env.SECRET ?? "";

const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

// Both ways to read a repeated v1 are found in the field.
function parse(header) {
  const found = { v1s: 0 };
  for (const part of header.split(",")) {
    const at = part.indexOf("=");
    const name = part.slice(0, at);
    const value = part.slice(at + 1);
    if (name === "v1") found.v1s++;
    if (lastWins || !(name in found)) found[name] = value;
  }
  return found;
}

function verify(body, signature) {
  if (!/^\d+$/.test(signature.t ?? "") || !/^[0-9a-f]{64}$/.test(signature.v1 ?? "")) return false;
  if (Math.abs(Date.now() / 1000 - Number(signature.t)) > tolerance) return false;
  const want = createHmac("sha256", secret).update(`${signature.t}.`).update(body).digest();
  return timingSafeEqual(want, Buffer.from(signature.v1, "hex"));
}

// What has been processed, and what is being processed at this moment. A real
// receiver keeps this where a restart does not lose it.
const done = new Set();
const running = new Set();

async function react(envelope) {
  await Promise.resolve(envelope.data); // the integration's own work
}

const app = express();

app.post("/webhooks/alga", express.raw({ type: "application/json", limit: "1mb" }), async (req, res) => {
  const signature = parse(req.get("X-Alga-Signature") ?? "");
  if (!verify(req.body, signature)) {
    print({ rejected: "bad signature", event_id: req.get("X-Alga-Event-Id") });
    return res.status(401).send("bad signature");
  }
  const envelope = JSON.parse(req.body.toString("utf8"));
  const id = req.get("X-Alga-Event-Id");
  // The headers are not signed: only an id that the body confirms is a key.
  if (id !== envelope.event_id || req.get("X-Alga-Event-Type") !== envelope.event_type) {
    print({ rejected: "headers differ from the body", event_id: id });
    return res.status(400).send("headers differ from the body");
  }
  if (done.has(id)) {
    print({ duplicate: id });
    return res.status(200).send("ok");
  }
  if (running.has(id)) return res.status(503).send("still at it");
  running.add(id);
  try {
    const relevant = watched.has(envelope.data.ticket_id);
    if (relevant) await react(envelope);
    done.add(id); // an event of another ticket is done too
    print({
      processed: id,
      event_type: envelope.event_type,
      ticket_id: envelope.data.ticket_id,
      reacted: relevant,
      attempt: req.get("X-Alga-Delivery-Attempt"),
      v1s: signature.v1s,
    });
    res.status(200).send("ok");
  } finally {
    running.delete(id);
  }
});

createInterface({ input: process.stdin })
  .on("line", (line) => {
    secret = JSON.parse(line).secret;
    print({ replaced: true });
  })
  .on("close", () => process.exit(0));

const server = app.listen(0, "127.0.0.1", () => {
  print({ listening: `http://127.0.0.1:${server.address().port}/webhooks/alga` });
});
