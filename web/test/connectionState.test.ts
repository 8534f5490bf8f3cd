import { describe, expect, it } from "vitest";

import { afterClose, afterNoToken, backoff } from "../src/connectionState";

const closed = { code: 1000, reason: "", isWaiting: false, refusals: 0 };

describe("afterClose", () => {
  it("is idle after a normal close when everything was answered", () => {
    expect(afterClose(closed)).toEqual({ name: "idle" });
  });

  it("reconnects after a normal close when an answer is missing", () => {
    expect(afterClose({ ...closed, isWaiting: true }).name).toBe("reconnecting");
  });

  it.each([1001, 1005, 1006, 1009, 1011, 1012, 1013])("reconnects after %i, answered or not", (code) => {
    expect(afterClose({ ...closed, code }).name).toBe("reconnecting");
    expect(afterClose({ ...closed, code, isWaiting: true }).name).toBe("reconnecting");
  });

  it("takes a first unauthorized for an old token, a second for an answer", () => {
    // Not within the second of a revocation, which concerns what is minted in it.
    expect(afterClose({ ...closed, code: 4001, refusals: 1 })).toMatchObject({ name: "waiting", waitMs: 1000 });
    expect(afterClose({ ...closed, code: 4001, refusals: 2, reason: "the token was revoked" })).toEqual({
      name: "refused",
      reason: "The token was revoked.",
      wayOn: "connect",
    });
  });

  it.each([4000, 4003, 4004, 4029, 4099])("does not come back after %i", (code) => {
    expect(afterClose({ ...closed, code, refusals: 1, isWaiting: true }).name).toBe("refused");
  });

  it("says something even when the peer did not", () => {
    expect(afterClose({ ...closed, code: 4003 })).toHaveProperty("reason", "The runner refused the connection.");
    expect(afterClose({ ...closed, code: 1006 })).toHaveProperty("reason", "The runner does not answer.");
  });
});

describe("afterNoToken", () => {
  const refused = { reason: "The key mints at most 6 tokens a minute.", isFinal: false, isLoggedOut: false };

  it("leads to the login who is logged out", () => {
    const state = afterNoToken({ ...refused, reason: "Your login has ended.", isFinal: true, isLoggedOut: true });
    expect(state).toEqual({ name: "refused", reason: "Your login has ended.", wayOn: "log in" });
  });

  it("does not ask again by itself where the answer would be the same", () => {
    expect(afterNoToken({ ...refused, reason: "not this app", isFinal: true })).toEqual({
      name: "refused",
      reason: "Not this app.",
      wayOn: "connect",
    });
  });

  it("asks again soon where nobody said when", () => {
    expect(afterNoToken(refused)).toEqual({ name: "reconnecting", reason: refused.reason });
  });

  it.each([
    [7, "7 s", 7_000],
    [120, "120 s", 120_000],
    [121, "3 min", 121_000],
    [18_700, "5 h 12 min", 18_700_000],
    [10 ** 9, "277777 h 47 min", 86_400_000],
  ])("waits %i s where it was told so, and says it", (retryAfterS, words, waitMs) => {
    const reason = `${refused.reason} Next try in ${words}.`;
    expect(afterNoToken({ ...refused, retryAfterS })).toEqual({ name: "waiting", reason, waitMs });
  });
});

describe("backoff", () => {
  it("doubles up to its bound", () => {
    expect([0, 1, 2, 3, 4, 5, 50].map((attempt) => backoff(attempt, 0.5))).toEqual([
      400, 800, 1600, 3200, 6400, 8000, 8000,
    ]);
  });

  it("is spread by a quarter to both sides", () => {
    expect(backoff(0, 0)).toBe(300);
    expect(backoff(0, 0.999)).toBeLessThan(500);
  });
});
