// Checks name and password and starts a session.
import { answer, FOREIGN, isForeign, members } from "@/lib/requests";
import { startSession, userIdOf } from "@/lib/session";

export async function POST(request: Request): Promise<Response> {
  if (isForeign(request)) return answer(FOREIGN, 403);
  const { username, password } = await members(request);
  const userId = userIdOf(username, password);
  if (!userId) return answer({ detail: "That name and password do not go together." }, 401);
  await startSession(userId);
  return answer();
}
