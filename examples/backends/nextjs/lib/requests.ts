// What every route here does with a request and an answer.

/** An answer that no cache keeps; `body` undefined: 204. */
export function answer(body?: unknown, status = 200): Response {
  const headers = { "Cache-Control": "no-store" };
  return body === undefined ? new Response(null, { status: 204, headers }) : Response.json(body, { status, headers });
}

/** Against forged requests: browsers say where a request comes from, and let no page lie about it. */
export function isForeign(request: Request): boolean {
  return (request.headers.get("Sec-Fetch-Site") ?? "same-origin") !== "same-origin";
}

/** The members of a JSON body; none unless it says application/json, which no foreign page can send unasked. */
export async function members(request: Request): Promise<Record<string, unknown>> {
  if (request.headers.get("Content-Type")?.split(";")[0].trim() !== "application/json") return {};
  const body: unknown = await request.json().catch(() => null);
  return typeof body === "object" && body !== null ? (body as Record<string, unknown>) : {};
}

export const FOREIGN = { detail: "This request did not come from this site's own page." };
