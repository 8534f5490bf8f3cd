// A login of the example's own: a signed cookie that says who and until when. In your application, keep yours.
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import { cookies } from "next/headers";
import { setting } from "@/lib/setting";

const COOKIE = "session";
const LASTS_S = 8 * 3600;

/** Your user table. The id goes into tokens and into the runner's log: opaque, not a mail address. */
const users = () => [{ id: "user-1", name: "ada", password: setting("LOGIN_PASSWORD") }];

/** Who logs in with this name and password. */
export function userIdOf(name: unknown, password: unknown): string | undefined {
  const user = users().find((known) => known.name === name);
  const isRight = isEqual(String(password), user?.password ?? "");
  return isRight ? user?.id : undefined;
}

/** Who is logged in. The cookie is signed and dated, and the user must still be one. */
export async function currentUserId(): Promise<string | undefined> {
  const [userId, expiresAt, signature] = (await cookies()).get(COOKIE)?.value.split(".") ?? [];
  if (!signature || !isEqual(signature, sign(`${userId}.${expiresAt}`))) return undefined;
  if (Number(expiresAt) <= Date.now() / 1000) return undefined;
  return users().find((known) => known.id === userId)?.id;
}

export async function startSession(userId: string): Promise<void> {
  const said = `${userId}.${Math.floor(Date.now() / 1000) + LASTS_S}`;
  (await cookies()).set(COOKIE, `${said}.${sign(said)}`, {
    httpOnly: true,
    sameSite: "lax",
    secure: process.env.COOKIE_INSECURE !== "1",
    maxAge: LASTS_S,
  });
}

export async function endSession(): Promise<void> {
  (await cookies()).delete(COOKIE);
}

function sign(text: string): string {
  return createHmac("sha256", setting("SESSION_SECRET")).update(text).digest("base64url");
}

/** Compares in time that depends on neither: equally long hashes. */
function isEqual(one: string, other: string): boolean {
  const [left, right] = [one, other].map((text) => createHash("sha256").update(text).digest());
  return timingSafeEqual(left, right);
}
