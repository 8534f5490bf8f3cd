import type { NoToken } from "./connectionState";

/** Why there is no token. */
export class TokenRefused extends Error implements NoToken {
  constructor(
    readonly reason: string,
    readonly isFinal: boolean,
    readonly isLoggedOut = false,
    readonly retryAfterS?: number,
  ) {
    super(reason);
  }
}

/**
 * The official client's `tokenProvider`: ask our own backend, which knows who is logged in.
 *
 * @param app The full path, for example `fal-ai/fast-lcm-diffusion/realtime`.
 * @throws TokenRefused
 */
export async function fetchToken(app: string): Promise<string> {
  const response = await ask(`/api/fal/token?app=${encodeURIComponent(app)}`);
  if (response.status === 401) throw new TokenRefused("Your login has ended.", true, true);
  const body: unknown = await response.json().catch(() => null);
  if (!response.ok) {
    const isFinal = response.status < 500 && response.status !== 429;
    throw new TokenRefused(reason(body), isFinal, false, retryAfterS(response));
  }
  return (body as { token: string }).token;
}

async function ask(url: string): Promise<Response> {
  try {
    return await fetch(url, { headers: { Accept: "application/json" } });
  } catch {
    throw new TokenRefused("The site does not answer.", false);
  }
}

/** The `detail` of the error body: a sentence, or a list of fields with a message each. */
function reason(body: unknown): string {
  const detail = (body as { detail?: unknown } | null)?.detail;
  if (typeof detail === "string") return detail;
  if (Array.isArray(detail)) return detail.map((field: { msg: string }) => field.msg).join("; ");
  return "The site could not get a token.";
}

/** The seconds of `Retry-After`, if it is written so; no service here writes it as a date. */
function retryAfterS({ headers }: Response): number | undefined {
  const value = headers.get("Retry-After") ?? "";
  return /^\d+$/.test(value) ? Number(value) : undefined;
}
