// `POST /api/fal/token`: what the official client's `tokenProvider` calls.
import { isAllowed, mint, TokenServiceError } from "@/lib/authsvc";
import { answer, FOREIGN, isForeign, members } from "@/lib/requests";
import { currentUserId } from "@/lib/session";

export async function POST(request: Request): Promise<Response> {
  if (isForeign(request)) return answer(FOREIGN, 403);
  const userId = await currentUserId();
  if (!userId) return answer({ detail: "Log in first." }, 401);
  const { app } = await members(request);
  if (!isAllowed(app)) return answer({ detail: "This app is not offered here." }, 403);
  try {
    return answer(await mint(app, userId));
  } catch (error) {
    if (error instanceof TokenServiceError) return error.toResponse();
    throw error;
  }
}
