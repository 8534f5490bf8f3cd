import { type ApiError, fal } from "@fal-ai/client";

import { afterClose, afterNoToken, backoff, type ConnectionState } from "./connectionState";
import { explain, type RealtimeError, type RealtimeInput, type RealtimeResult } from "./messages";
import { selfHost } from "./selfHost";
import { fetchToken, TokenRefused } from "./token";

/** The server keeps only the newest waiting input: what one typed since then is no longer wanted. */
const MAX_BUFFERING = 1;
const THROTTLE_MS = 50;
/** What a close follows, which says that it is over. */
const REFUSALS = ["UNAUTHORIZED", "FORBIDDEN", "NOT_FOUND", "LIMIT_EXCEEDED"];

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
  /** When the next attempt may be made, in milliseconds of the page's clock. */
  #notBefore = 0;

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

  /** Send `input`, connecting first where need be; later, if one was told to wait. */
  send(input: RealtimeInput): void {
    const now = performance.now();
    if (now >= this.#notBefore) this.#transmit(input, now);
    else this.#later({ order: ++this.#order, input, at: now }, this.#notBefore - now);
  }

  /** Try once more what was refused. */
  again(): void {
    this.#attempts = 0;
    this.#refusals = 0;
    if (this.#last) this.#transmit(this.#last.input, performance.now());
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

  #onTokenRefused(refused: TokenRefused): void {
    this.#enter(afterNoToken(refused));
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
      this.#enter({ name: "reconnecting", reason: body.reason });
    } else if (REFUSALS.includes(body.error)) {
      this.#refusal = body.reason;
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
    this.#enter(state);
  }

  #enter(state: ConnectionState): void {
    if (state.name === "reconnecting" || state.name === "waiting") this.#reconnect(state);
    else this.#options.onState(state);
  }

  /** The client connects only in order to send, so the last input goes again: same seed, same picture. */
  #reconnect(state: ConnectionState): void {
    this.#options.onState(state);
    const waitMs = state.name === "waiting" ? state.waitMs : 0;
    this.#notBefore = performance.now() + waitMs;
    this.#later(this.#last, waitMs + backoff(this.#attempts, Math.random()));
    this.#attempts += 1;
  }

  /** Send `last` after a while, unless something newer comes. */
  #later(last: Sent | undefined, delayMs: number): void {
    this.#last = last;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => last && this.#transmit(last.input, last.at), delayMs);
  }
}
