// What the official client needs in a browser: no key, only your own backend's route (see ../backends).
//   fal.realtime.connect("fal-ai/fast-lcm-diffusion", { tokenProvider: tokenProvider(), tokenExpirationSeconds: 120, … })

/** A tokenProvider that asks `POST /api/fal/token`. In Node, `fetchIt` carries the cookies that a browser carries. */
export function tokenProvider(fetchIt = fetch) {
  return async (app) => {
    const response = await fetchIt("/api/fal/token", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ app }),
    });
    if (!response.ok) throw new Error(`no token: ${response.status} ${(await response.json()).detail}`);
    return response.json(); // the bare token: the client takes an object for the token itself
  };
}
