import { describe, expect, it, test } from "vitest";

import { anyScene, parse, phrase, VOCABULARY } from "../src/scene";

describe("parse", () => {
  it("reads every part of a whole sentence", () => {
    expect(parse("a small red star at the left on a blue background")).toEqual({
      size: "small",
      colour: "red",
      shape: "star",
      place: "left",
      background: "blue",
    });
  });

  it.each([
    ["A HUGE Violet heart", { size: "large", colour: "purple", shape: "heart" }],
    ["star in the top left corner", { shape: "star", place: "top left" }],
    ["gray circle, middle, white background", { colour: "grey", shape: "circle", place: "centre", background: "white" }],
    ["a square on an orange background", { shape: "square", background: "orange" }],
    ["on black a white circle", { colour: "white", shape: "circle", background: "black" }],
    ["a dog on the left", { place: "left" }],
    ["starfish and bluebells", {}],
    ["", {}],
  ])("reads %j", (prompt, scene) => {
    expect(parse(prompt)).toEqual(scene);
  });
});

describe("phrase", () => {
  it.each([
    [{}, "a circle"],
    [{ colour: "orange" }, "an orange circle"],
    [{ shape: "heart", place: "centre" }, "a heart in the centre"],
    [{ shape: "star", place: "top left", background: "orange" }, "a star at the top left on an orange background"],
  ])("says %j", (scene, sentence) => {
    expect(phrase(scene)).toBe(sentence);
  });
});

test("what is phrased is read back as it was", () => {
  for (const shape of VOCABULARY.shape)
    for (const place of VOCABULARY.place)
      for (const colour of VOCABULARY.colour) {
        const scene = { size: "small", colour, shape, place, background: colour === "red" ? "blue" : "red" };
        expect(parse(phrase(scene))).toEqual(scene);
      }
});

test("a surprise is a whole scene whose shape stands out from its background", () => {
  for (let i = 0; i < 200; i += 1) {
    const scene = anyScene(() => (i * 0.61803) % 1);
    expect(Object.keys(scene)).toHaveLength(5);
    expect(scene.colour).not.toBe(scene.background);
    expect(parse(phrase(scene))).toEqual(scene);
  }
});
