/** The one address that `@fal-ai/client` 1.10.1 opens realtime sockets at; it has no option for another. */
const FAL_REALTIME = "wss://fal.run/";

/**
 * Point the official client's realtime sockets at your own runner.
 *
 * The client reads the global `WebSocket` each time it connects, so a subclass that rewrites fal's address is
 * enough; every other socket of the page stays as it is.
 *
 * @param runnerUrl `ws://host:port` or `wss://host`.
 * @param onSocket Told of each socket to the runner: the client itself does not say when one opens or closes.
 */
export function selfHost(runnerUrl: string, onSocket?: (socket: WebSocket) => void): void {
  const base = runnerUrl.replace(/\/*$/, "/");
  globalThis.WebSocket = class extends WebSocket {
    constructor(url: string | URL, protocols?: string | string[]) {
      const address = String(url);
      const isRealtime = address.startsWith(FAL_REALTIME);
      super(isRealtime ? base + address.slice(FAL_REALTIME.length) : url, protocols);
      if (isRealtime) onSocket?.(this);
    }
  };
}
