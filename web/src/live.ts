import { type ApiError, fal } from "@fal-ai/client";

import { afterClose, backoff, type ConnectionState } from "./connectionState";
import { explain, type RealtimeError, type RealtimeInput, type RealtimeResult } from "./messages";
import { selfHost } from "./selfHost";
import { fetchToken, TokenRefused } from "./token";

/** The server keeps only the newest waiting input: what one typed since then is no longer wanted. */
const MAX_BUFFERING = 1;
const THROTTLE_MS = 50;

/** An input on its way. */
export interface Sent {
  /** Grows with each input: a result with a smaller one is older. */
  order: number;
  input: RealtimeInput;
  /** When it was asked for, in milliseconds of the page's clock. */
  at: number;
}

export interface LiveOptions {
  app: string;
  runnerUrl: string;
  tokenSeconds: number;
  onResult(result: RealtimeResult, sent: Sent): unknown;
  onState(state: ConnectionState): void;
  /** An input was refused or failed; the connection lives on. */
  onProblem(words: string): void;
}

/** A realtime connection by the official client that says how it is and comes back by itself. */
export class Live {
  readonly #options: LiveOptions;
  readonly #connection;
  #socket: WebSocket | undefined;
  readonly #waiting = new Map<number, Sent>();
  #last: Sent | undefined;
  #order = 0;
  #attempts = 0;
  #refusals = 0;
  #refusal: string | undefined;
  #retry: ReturnType<typeof setTimeout> | undefined;

  constructor(options: LiveOptions) {
    this.#options = options;
    selfHost(options.runnerUrl, (socket) => this.#watch(socket));
    this.#connection = fal.realtime.connect<RealtimeInput, RealtimeResult>(options.app, {
      maxBuffering: MAX_BUFFERING,
      throttleInterval: THROTTLE_MS,
      tokenProvider: (app) => this.#token(app),
      tokenExpirationSeconds: options.tokenSeconds,
      onResult: (result) => this.#onResult(result, Number(result.request_id)),
      onError: (error) => this.#onError(error),
    });
  }

  /** Send `input`, connecting first where need be. */
  send(input: RealtimeInput): void {
    this.#transmit(input, performance.now());
  }

  /** Take a place in the order without sending: what was sent before is no longer waited for. */
  pass(): number {
    clearTimeout(this.#retry);
    this.#waiting.clear();
    return ++this.#order;
  }

  #transmit(input: RealtimeInput, at: number): void {
    clearTimeout(this.#retry);
    this.#last = { order: ++this.#order, input, at };
    this.#waiting.set(this.#order, this.#last);
    this.#connection.send({ ...input, request_id: String(this.#order) });
  }

  async #token(app: string): Promise<string> {
    // On an open socket the client only refreshes what it will open the next one with.
    const isRefresh = this.#socket?.readyState === WebSocket.OPEN;
    if (!isRefresh && this.#attempts === 0) this.#options.onState({ name: "connecting" });
    try {
      return await fetchToken(app);
    } catch (error) {
      if (!isRefresh && error instanceof TokenRefused) this.#onTokenRefused(error);
      throw error;
    }
  }

  #onTokenRefused({ reason, isFinal, isLoggedOut }: TokenRefused): void {
    if (isFinal) this.#options.onState({ name: "refused", reason, isLoggedOut });
    else this.#reconnect({ name: "reconnecting", reason });
  }

  #watch(socket: WebSocket): void {
    this.#socket = socket;
    socket.addEventListener("close", ({ code, reason }) => this.#onClose(code, reason));
  }

  #onResult(result: RealtimeResult, order: number): void {
    const sent = this.#waiting.get(order);
    this.#settle(order);
    if (sent) this.#options.onResult(result, sent);
  }

  #onError({ body }: ApiError<RealtimeError | undefined>): void {
    if (body?.type !== "x-fal-error") return; // a close or a failed attempt: #onClose hears of it too
    if (body.error === "UNAVAILABLE") {
      this.#reconnect({ name: "reconnecting", reason: body.reason });
    } else if (["UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND"].includes(body.error)) {
      this.#refusal = body.reason; // the close that follows says it is over
    } else {
      this.#settle(Number(body.request_id ?? this.#order));
      this.#options.onProblem(explain(body));
    }
  }

  /** An answer came: the connection works, and inputs up to `order` wait no more (newer ones replaced them). */
  #settle(order: number): void {
    for (const older of this.#waiting.keys()) if (older <= order) this.#waiting.delete(older);
    this.#attempts = 0;
    this.#refusals = 0;
    this.#options.onState({ name: "live" });
  }

  #onClose(code: number, reason: string): void {
    if (code >= 4000 && code < 4100) this.#refusals += 1;
    const state = afterClose({
      code,
      reason: this.#refusal ?? reason,
      isWaiting: this.#waiting.size > 0,
      refusals: this.#refusals,
    });
    this.#refusal = undefined;
    if (state.name === "reconnecting") this.#reconnect(state);
    else this.#options.onState(state);
  }

  /** The client connects only in order to send, so the last input goes again: same seed, same picture. */
  #reconnect(state: ConnectionState): void {
    this.#options.onState(state);
    clearTimeout(this.#retry);
    const again = () => this.#last && this.#transmit(this.#last.input, this.#last.at);
    this.#retry = setTimeout(again, backoff(this.#attempts, Math.random()));
    this.#attempts += 1;
  }
}
