import { describe, expect, it } from "vitest";

import { explain, type RealtimeError } from "../src/messages";
import { fileName, NewestOnly, type Picture } from "../src/picture";

const error = (members: Partial<RealtimeError>): RealtimeError => ({
  type: "x-fal-error",
  error: "VALIDATION_ERROR",
  reason: "invalid input",
  ...members,
});

describe("explain", () => {
  it("names each field as the page does", () => {
    const detail = [
      { loc: ["body", "num_inference_steps"], msg: "Input should be at most 50" },
      { loc: ["strength"], msg: "Input should be a number." },
    ];
    expect(explain(error({ detail }))).toBe("Steps: input should be at most 50. strength: input should be a number.");
  });

  it("falls back to the reason", () => {
    expect(explain(error({ detail: [] }))).toBe("invalid input");
    expect(explain(error({ error: "SOMETHING_NEW", reason: "why" }))).toBe("why");
  });

  it("blames no field of a message that is none", () => {
    expect(explain(error({ detail: [{ loc: [], msg: "Not a map" }] }))).toBe("Input: not a map.");
  });

  it("gives an internal error's id", () => {
    expect(explain(error({ error: "INTERNAL_ERROR", error_id: "abc" }))).toContain("abc");
    expect(explain(error({ error: "INTERNAL_ERROR" }))).toBe("The engine failed on this picture.");
  });
});

describe("NewestOnly", () => {
  it("admits only what is newer than all before", () => {
    const newest = new NewestOnly();
    expect([1, 3, 2, 3, 4].map((order) => newest.admit(order))).toEqual([true, true, false, false, true]);
  });
});

describe("fileName", () => {
  const picture = (prompt: string, contentType = "image/jpeg") =>
    fileName({ input: { prompt }, seed: 7, contentType } as Picture);

  it.each([
    ["a Small red star!", "a-small-red-star-7.jpg"],
    ["../../etc/passwd", "etc-passwd-7.jpg"],
    ["…", "picture-7.jpg"],
    ["one two three four five six seven eight nine", "one-two-three-four-five-six-seven-eight-7.jpg"],
  ])("of %j is %j", (prompt, name) => {
    expect(picture(prompt)).toBe(name);
  });

  it("says what is in it", () => {
    expect(picture("a star", "image/png")).toBe("a-star-7.png");
  });
});
