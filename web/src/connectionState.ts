/** What the page says of its connection, and what it does when a socket closes. Decisions only, no I/O. */

export type ConnectionState =
  | { name: "idle" }
  | { name: "connecting" }
  | { name: "live" }
  | { name: "reconnecting"; reason: string }
  | { name: "refused"; reason: string; isLoggedOut?: boolean };

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

/** The state after a close; `reconnecting` asks for another attempt. */
export function afterClose({ code, reason, isWaiting, refusals }: Closed): ConnectionState {
  if (code >= 4000 && code < 4100) {
    // The client keeps its token across a connection that never opened, so the first refusal may only mean that
    // the token has run out; after a refusal it fetches a new one.
    if (code === UNAUTHORIZED && refusals === 1) return { name: "reconnecting", reason: "Fetching a new token." };
    return { name: "refused", reason: reason || "The runner refused the connection." };
  }
  if (code === NORMAL && !isWaiting) return { name: "idle" };
  return { name: "reconnecting", reason: reason || "The runner does not answer." };
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
