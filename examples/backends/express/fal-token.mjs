// `POST /api/fal/token`: what the official client's `tokenProvider` calls. Copy this file; see server.mjs for its use.
import { Router } from "express";

// What your users may open. The browser chooses among these and never beyond them.
const ALLOWED_APPS = ["fal-ai/fast-lcm-diffusion/realtime", "fal-ai/fast-lcm-diffusion/image-to-image/realtime"];
const TOKEN_S = 120;
const SESSION_MAX_S = 900;
const TIMEOUT_MS = 5000;
const { AUTHSVC_URL, AUTHSVC_KEY } = process.env;
if (!AUTHSVC_URL || !AUTHSVC_KEY) throw new Error("set AUTHSVC_URL and AUTHSVC_KEY");

/** The route, for an application whose `currentUserId(request)` says who is logged in. */
export function tokenRoute(currentUserId) {
  return Router().post("/api/fal/token", async (request, response) => {
    const userId = currentUserId(request);
    if (!userId) return response.status(401).json({ detail: "Log in first." });
    // express.json() reads application/json alone, which no foreign page can send unasked.
    const app = request.body?.app;
    if (!ALLOWED_APPS.includes(app)) return response.status(403).json({ detail: "This app is not offered here." });
    response.json(await mint(app, userId));
  });
}

/** A token that opens `app` and nothing else, in this user's name. */
export async function mint(app, userId) {
  const asked = { allowed_apps: [app], duration: TOKEN_S, subject: userId, max_session_s: SESSION_MAX_S };
  return (await (await ask("/tokens/realtime", asked)).json()).token;
}

/** Ends every token and every open socket of a user: call it at logout. */
export async function revoke(userId) {
  await ask("/tokens/revoke", { subject: userId });
}

/** What the browser hears: a status, a sentence, perhaps how long to wait. */
export class TokenServiceError extends Error {
  constructor(status, detail, retryAfter) {
    super(detail);
    Object.assign(this, { status, retryAfter });
  }
}

/** Asks authsvc. What it says when it refuses is for your log, not for the browser. */
async function ask(path, body) {
  const answer = await fetch(AUTHSVC_URL + path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Key ${AUTHSVC_KEY}` },
    body: JSON.stringify(body),
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
