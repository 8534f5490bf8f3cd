/** What the page says of its connection, and what it does when a socket closes. Decisions only, no I/O. */

export type ConnectionState =
  | { name: "idle" }
  | { name: "connecting" }
  | { name: "live" }
  | { name: "reconnecting"; reason: string }
  /** Told to come again after `waitMs`, and not earlier. */
  | { name: "waiting"; reason: string; waitMs: number }
  | { name: "refused"; reason: string; wayOn: WayOn };

/** What people can do about a refusal. */
export type WayOn = "log in" | "connect";

export interface Closed {
  code: number;
  reason: string;
  /** An input was sent that no result has answered. */
  isWaiting: boolean;
  /** Refusals in a row, this one included. */
  refusals: number;
}

const NORMAL = 1000;
const UNAUTHORIZED = 4001;
/** A revocation concerns what is minted in its second too: a new token has to be of the next one. */
const NEW_TOKEN_MS = 1000;
/** A daily quota is back by then; and browsers count a timer's milliseconds in 31 bits. */
const LONGEST_WAIT_S = 24 * 3600;

/** The state after a close; `reconnecting` and `waiting` ask for another attempt. */
export function afterClose({ code, reason, isWaiting, refusals }: Closed): ConnectionState {
  if (code >= 4000 && code < 4100) {
    // The client keeps its token across a connection that never opened, so the first refusal may only mean that
    // the token has run out; after a refusal it fetches a new one. Who logged out in another tab is told so then.
    if (code === UNAUTHORIZED && refusals === 1) {
      return { name: "waiting", reason: "The token is good no more. Fetching a new one.", waitMs: NEW_TOKEN_MS };
    }
    return { name: "refused", reason: sentence(reason) || "The runner refused the connection.", wayOn: "connect" };
  }
  if (code === NORMAL && !isWaiting) return { name: "idle" };
  return { name: "reconnecting", reason: reason || "The runner does not answer." };
}

/** Why the site gave no token. */
export interface NoToken {
  reason: string;
  /** Asking again would get the same answer. */
  isFinal: boolean;
  isLoggedOut: boolean;
  /** Seconds that the answer told to wait. */
  retryAfterS?: number | undefined;
}

/** The state after the site gave no token. */
export function afterNoToken({ reason, isFinal, isLoggedOut, retryAfterS }: NoToken): ConnectionState {
  if (isLoggedOut) return { name: "refused", reason, wayOn: "log in" };
  if (isFinal) return { name: "refused", reason: sentence(reason), wayOn: "connect" };
  if (retryAfterS === undefined) return { name: "reconnecting", reason };
  const words = `${sentence(reason)} Next try in ${duration(retryAfterS)}.`;
  return { name: "waiting", reason: words, waitMs: 1000 * Math.min(retryAfterS, LONGEST_WAIT_S) };
}

/** Programs write reasons in lower case and without a full stop. */
function sentence(reason: string): string {
  const text = reason.charAt(0).toUpperCase() + reason.slice(1);
  return text === "" || /[.!?]$/.test(text) ? text : `${text}.`;
}

/** For people, to the minute above two minutes. */
function duration(seconds: number): string {
  if (seconds <= 120) return `${seconds} s`;
  const minutes = Math.ceil(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const FIRST_DELAY_MS = 400;
const LONGEST_DELAY_MS = 8000;

/**
 * Milliseconds before attempt number `attempt` (from 0): doubling, up to a bound.
 *
 * @param random In [0, 1): spreads pages that lost the same runner at the same moment.
 */
export function backoff(attempt: number, random: number): number {
  const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** attempt);
  return delay * (0.75 + random / 2);
}
