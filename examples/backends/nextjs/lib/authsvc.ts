// Asks authsvc for tokens. Server code only: the key must not reach a browser.
import { setting } from "@/lib/setting";

// What your users may open. The browser chooses among these and never beyond them.
const ALLOWED_APPS = ["fal-ai/fast-lcm-diffusion/realtime", "fal-ai/fast-lcm-diffusion/image-to-image/realtime"];
const TOKEN_S = 120;
const SESSION_MAX_S = 900;
const TIMEOUT_MS = 5000;

/** Whether `app` is one that your users may open. */
export function isAllowed(app: unknown): app is string {
  return ALLOWED_APPS.some((allowed) => allowed === app);
}

/** A token that opens `app` and nothing else, in this user's name. */
export async function mint(app: string, userId: string): Promise<string> {
  const asked = { allowed_apps: [app], duration: TOKEN_S, subject: userId, max_session_s: SESSION_MAX_S };
  const { token } = (await (await ask("/tokens/realtime", asked)).json()) as { token: string };
  return token;
}

/** Ends every token and every open socket of a user: call it at logout. */
export async function revoke(userId: string): Promise<void> {
  await ask("/tokens/revoke", { subject: userId });
}

/** What the browser hears: a status, a sentence, perhaps how long to wait. */
export class TokenServiceError extends Error {
  constructor(readonly status: number, detail: string, readonly retryAfter?: string) {
    super(detail);
  }

  toResponse(): Response {
    const headers: HeadersInit = this.retryAfter === undefined ? {} : { "Retry-After": this.retryAfter };
    return Response.json({ detail: this.message }, { status: this.status, headers });
  }
}

/** Asks authsvc. What it says when it refuses is for your log, not for the browser. */
async function ask(path: string, body: object): Promise<Response> {
  const answer = await fetch(setting("AUTHSVC_URL") + path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Key ${setting("AUTHSVC_KEY")}` },
    body: JSON.stringify(body),
    cache: "no-store",
    redirect: "error", // the key goes to authsvc and nowhere else
    signal: AbortSignal.timeout(TIMEOUT_MS),
  }).catch((error) => {
    console.error(`authsvc ${path}: ${error.cause?.code ?? error.name}`);
    throw new TokenServiceError(503, "Pictures are not available just now.", "5");
  });
  if (answer.status === 429 || answer.status === 503) {
    const wait = answer.headers.get("Retry-After") ?? "";
    throw new TokenServiceError(503, "Pictures are busy just now.", /^\d+$/.test(wait) ? wait : "5");
  }
  if (!answer.ok) { // the key, its scope or this file is wrong; it is never the visitor's fault
    console.error(`authsvc ${path}: status ${answer.status}, ${answer.headers.get("X-Fal-Error-Type")}`);
    throw new TokenServiceError(502, "Pictures are not available.");
  }
  return answer;
}
