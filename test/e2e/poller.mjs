// The polling loop that webhooks replace, in Node's own fetch. A scheduler would
// start a round every minute; here every line on the input does.
//
//   API_URL  base of the service
//   API_KEY  key of the integration
//   WATCHED  ticket ids, separated by commas
//
// It prints {"ready"} once it knows the tickets' present state, then for every
// round {"requests", "failed", "changed"}: what the round cost and which tickets
// had changed since they were last seen.
import { createInterface } from "node:readline";

const { API_URL, API_KEY, WATCHED } = process.env;
const tickets = WATCHED.split(",");
const lastSeen = {};

const print = (line) => process.stdout.write(JSON.stringify(line) + "\n");

async function round(react) {
  let requests = 0;
  let failed = 0;
  for (const id of tickets) {
    requests++;
    const response = await fetch(`${API_URL}/api/v1/tickets/${id}`, { headers: { "X-API-Key": API_KEY } });
    if (!response.ok) {
      failed++;
      await response.arrayBuffer(); // frees the connection
      continue;
    }
    const ticket = (await response.json()).data;
    if (lastSeen[id] === undefined || ticket.updated_at > lastSeen[id]) {
      react(ticket);
      lastSeen[id] = ticket.updated_at;
    }
  }
  return { requests, failed };
}

// Without this, the first round would report every ticket as changed.
await round(() => {});
print({ ready: true });

for await (const _ of createInterface({ input: process.stdin })) {
  const changed = [];
  const cost = await round((ticket) => changed.push(ticket.ticket_id));
  print({ ...cost, changed });
}
