// Ends the session, and with it the user's tokens and open sockets.
import { revoke, TokenServiceError } from "@/lib/authsvc";
import { answer, FOREIGN, isForeign } from "@/lib/requests";
import { currentUserId, endSession } from "@/lib/session";

export async function POST(request: Request): Promise<Response> {
  if (isForeign(request)) return answer(FOREIGN, 403);
  const userId = await currentUserId();
  await endSession();
  try {
    if (userId) await revoke(userId);
    return answer();
  } catch (error) {
    if (error instanceof TokenServiceError) return error.toResponse();
    throw error;
  }
}
