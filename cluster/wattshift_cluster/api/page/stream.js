// Server-sent events over fetch, because EventSource cannot send an Authorization header.
// Comes back after every break with the last id it saw; the first time it asks with id 0, which
// the server answers with all the events it still holds: so the chart starts full.

const BACKOFF_FIRST_MS = 500;
const BACKOFF_MOST_MS = 10000;
const SILENCE_MS = 25000; // the server sends a heartbeat every 10 s

export class Refusal extends Error {}

export async function ask(path, token) {
  const answer = await fetch(path, { headers: { Authorization: `Bearer ${token}` } });
  if (answer.status === 401 || answer.status === 403) throw new Refusal((await answer.json()).detail);
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  return answer.json();
}

export async function follow(token, { onEvent, onLink }) {
  let lastId = "0";
  let pauseMs = BACKOFF_FIRST_MS;
  for (;;) {
    const stop = new AbortController();
    let watchdog = 0;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => stop.abort(), SILENCE_MS);
    };
    try {
      alive();
      const answer = await fetch("/v1/stream", {
        headers: { Authorization: `Bearer ${token}`, "Last-Event-ID": lastId },
        signal: stop.signal,
        cache: "no-store",
      });
      if (answer.status === 401 || answer.status === 403) throw new Refusal((await answer.json()).detail);
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      onLink(true);
      pauseMs = BACKOFF_FIRST_MS;
      for await (const event of events(answer.body, alive)) {
        if (event.id) lastId = event.id;
        onEvent(event.name, event.data);
      }
    } catch (error) {
      if (error instanceof Refusal) throw error;
    } finally {
      clearTimeout(watchdog);
    }
    onLink(false);
    await new Promise((done) => setTimeout(done, pauseMs * (0.75 + Math.random() / 2)));
    pauseMs = Math.min(pauseMs * 2, BACKOFF_MOST_MS);
  }
}

async function* events(body, alive) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    alive();
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { id: null, name: "message", data: "" };
      for (const line of block.split("\n")) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("event: ")) event.name = line.slice(7);
        else if (line.startsWith("data: ")) event.data += line.slice(6);
      }
      if (event.data) yield { ...event, data: JSON.parse(event.data) };
    }
  }
}
