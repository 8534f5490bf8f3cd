// What turns the official client towards another host, and nothing else: @fal-ai/client builds the literal
// `wss://fal.run/…` and opens it with the global WebSocket (src/realtime.ts, buildRealtimeUrl).
import { createServer } from "node:http";
import { handleRequest } from "@fal-ai/server-proxy";
import WebSocket from "ws";

/** Sockets opened so far, each with a `closing` promise of its close code, and the kinds of messages `sent`. */
export const sockets = [];

/** Send every `wss://fal.run` socket to `runnerUrl` (ws://host:port). */
export function selfHost(runnerUrl) {
  globalThis.WebSocket = class extends WebSocket {
    constructor(url) {
      super(String(url).replace("wss://fal.run", runnerUrl));
      this.closing = new Promise((resolve) => this.addEventListener("close", (event) => resolve(event.code)));
      this.sent = [];
      sockets.push(this);
    }

    send(message) {
      this.sent.push(typeof message === "string" ? "text" : "binary");
      super.send(message);
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

/** A requestMiddleware for what is not a socket: tokens come from authsvc, the rest from the runner. */
export const redirected = ({ authsvc, runner }) => async (request) => ({
  ...request,
  url: request.url
    .replace("https://rest.fal.ai", authsvc)
    .replace("https://fal.run", runner.replace("ws://", "http://")),
});

/**
 * A backend with the official @fal-ai/server-proxy, which keeps the key. Its fetch of rest.fal.ai goes to authsvc; the
 * token route has to be allowed by hand, as the proxy's default list does not have it.
 */
export async function falProxy(authsvcUrl, apiKey) {
  const proxy = { targets: [] };
  const plainFetch = globalThis.fetch;
  globalThis.fetch = (url, options) => plainFetch(String(url).replace("https://rest.fal.ai", authsvcUrl), options);
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    proxy.targets.push(request.headers["x-fal-target-url"]);
    await handleRequest(
      {
        id: "node",
        method: request.method,
        getRequestBody: async () => Buffer.concat(chunks).toString(),
        getHeaders: () => request.headers,
        getHeader: (name) => request.headers[name],
        sendHeader: (name, value) => response.setHeader(name, value),
        respondWith: (status, body) => response.writeHead(status).end(JSON.stringify(body)),
        sendResponse: async (answer) => response.writeHead(answer.status).end(await answer.text()),
      },
      {
        allowedUrlPatterns: ["rest.fal.ai/tokens/"],
        allowUnauthorizedRequests: true,
        resolveFalAuth: async () => `Key ${apiKey}`,
      },
    );
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  proxy.url = `http://127.0.0.1:${server.address().port}/api/fal/proxy`;
  return proxy;
}
