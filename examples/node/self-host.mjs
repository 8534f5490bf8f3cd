// @fal-ai/client opens the literal wss://fal.run/… with the global WebSocket; this sends it to your runner instead.
// Node before 22 has no global WebSocket, hence `ws`; in a browser, extend the one that is there.
import WebSocket from "ws";

export function selfHost(runnerUrl) {
  globalThis.WebSocket = class extends WebSocket {
    constructor(url) {
      super(String(url).replace("wss://fal.run", runnerUrl));
    }
  };
}
