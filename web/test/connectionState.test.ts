import { describe, expect, it } from "vitest";

import { afterClose, backoff } from "../src/connectionState";

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
    expect(afterClose({ ...closed, code: 4001, refusals: 1 }).name).toBe("reconnecting");
    expect(afterClose({ ...closed, code: 4001, refusals: 2, reason: "expired" })).toEqual({
      name: "refused",
      reason: "expired",
    });
  });

  it.each([4000, 4003, 4004, 4099])("does not come back after %i", (code) => {
    expect(afterClose({ ...closed, code, refusals: 1, isWaiting: true }).name).toBe("refused");
  });

  it("says something even when the peer did not", () => {
    expect(afterClose({ ...closed, code: 4003 })).toHaveProperty("reason", "The runner refused the connection.");
    expect(afterClose({ ...closed, code: 1006 })).toHaveProperty("reason", "The runner does not answer.");
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
