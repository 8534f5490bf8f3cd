import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { selfHost } from "../src/selfHost";
import { fetchToken } from "../src/token";

afterEach(() => vi.unstubAllGlobals());

describe("selfHost", () => {
  const opened: string[] = [];
  class Socket {
    constructor(readonly url: string | URL, readonly protocols?: string | string[]) {
      opened.push(String(url));
    }
  }

  beforeEach(() => {
    opened.length = 0;
    vi.stubGlobal("WebSocket", Socket);
  });

  it.each(["ws://127.0.0.1:8002", "ws://127.0.0.1:8002/"])("sends realtime sockets to %s", (runner) => {
    selfHost(runner);
    new WebSocket("wss://fal.run/fal-ai/app/realtime?fal_jwt_token=a%2Fb&max_buffering=1");
    expect(opened).toEqual(["ws://127.0.0.1:8002/fal-ai/app/realtime?fal_jwt_token=a%2Fb&max_buffering=1"]);
  });

  it("keeps a path prefix of the runner", () => {
    selfHost("wss://example.org/gpu");
    new WebSocket("wss://fal.run/app");
    expect(opened).toEqual(["wss://example.org/gpu/app"]);
  });

  it("leaves every other socket alone", () => {
    const seen = vi.fn();
    selfHost("ws://runner", seen);
    const socket = new WebSocket(new URL("wss://fal.run.evil.example/x"), ["chat"]);
    expect(opened).toEqual(["wss://fal.run.evil.example/x"]);
    expect(socket).toHaveProperty("protocols", ["chat"]);
    expect(seen).not.toHaveBeenCalled();
  });

  it("tells of each socket to the runner", () => {
    const seen = vi.fn();
    selfHost("ws://runner", seen);
    expect(seen.mock.calls).toEqual([]);
    const socket = new WebSocket("wss://fal.run/app");
    expect(seen.mock.calls).toEqual([[socket]]);
    expect(socket).toBeInstanceOf(Socket);
  });
});

describe("fetchToken", () => {
  const answer = (status: number, body: string, headers = {}) =>
    vi.stubGlobal("fetch", vi.fn(async () => new Response(body, { status, headers })));

  it("asks for the very app and gives the token", async () => {
    answer(200, '{"token": "t", "expires_in": 120}');
    expect(await fetchToken("a/b/realtime")).toBe("t");
    expect(fetch).toHaveBeenCalledWith("/api/fal/token?app=a%2Fb%2Frealtime", expect.anything());
  });

  it.each([
    [401, '{"detail": "Log in first."}', "Your login has ended.", true, true],
    [403, '{"detail": "not this app"}', "not this app", true, false],
    [422, '{"detail": [{"msg": "one"}, {"msg": "two"}]}', "one; two", true, false],
    [429, '{"detail": "slow down"}', "slow down", false, false],
    [502, "<html>", "The site could not get a token.", false, false],
    [503, '{"detail": "away"}', "away", false, false],
  ])("after %i it says why, and whether to ask again", async (status, body, reason, isFinal, isLoggedOut) => {
    answer(status, body);
    await expect(fetchToken("app")).rejects.toMatchObject({ reason, isFinal, isLoggedOut });
  });

  it.each([
    ["7", 7],
    ["0", 0],
    ["Wed, 21 Oct 2026 07:28:00 GMT", undefined],
    ["-1", undefined],
  ])("hears when to come again: %s", async (value, retryAfterS) => {
    answer(429, '{"detail": "slow down"}', { "Retry-After": value });
    await expect(fetchToken("app")).rejects.toMatchObject({ isFinal: false, retryAfterS });
  });

  it("does not take a lost network for an answer", async () => {
    vi.stubGlobal("fetch", vi.fn(async () => Promise.reject(new TypeError("failed to fetch"))));
    await expect(fetchToken("app")).rejects.toMatchObject({ reason: "The site does not answer.", isFinal: false });
  });
});
