// What turns the official client towards another host, and nothing else: @fal-ai/client builds the literal
// `wss://fal.run/…` and opens it with the global WebSocket (src/realtime.ts, buildRealtimeUrl).
import WebSocket from "ws";

/** Sockets opened so far, each with a `closing` promise of its close code. */
export const sockets = [];

/** Send every `wss://fal.run` socket to `runnerUrl` (ws://host:port). */
export function selfHost(runnerUrl) {
  globalThis.WebSocket = class extends WebSocket {
    constructor(url) {
      super(String(url).replace("wss://fal.run", runnerUrl));
      this.closing = new Promise((resolve) => this.addEventListener("close", (event) => resolve(event.code)));
      sockets.push(this);
    }
  };
}

/** A tokenProvider that does what a user's backend does, and counts its calls. */
export function tokenProvider(authsvcUrl, apiKey, apps) {
  const provider = async (app) => {
    provider.calls.push(app);
    const response = await fetch(`${authsvcUrl}/tokens/realtime`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Key ${apiKey}` },
      body: JSON.stringify({ allowed_apps: apps ?? [app], duration: 120 }),
    });
    const { token } = await response.json();
    return token;
  };
  provider.calls = [];
  return provider;
}
